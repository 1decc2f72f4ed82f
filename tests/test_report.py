"""The report asks for numbers that the study's summaries make, and says *not run yet* where they have not."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from ferlib import evaluation

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = ROOT / "notebooks" / "09_reproduction_report.ipynb"
RECORDS = ROOT / "book" / "records"


class Anything(dict):
    """Rows of a study that is complete: whatever is asked for is there."""

    def __init__(self, row):
        super().__init__()
        self.row = row

    def __missing__(self, key):
        return self.row


@pytest.fixture
def scripts(monkeypatch):
    """The scripts of a folder, imported as they import each other, and forgotten again."""
    before = set(sys.modules)

    def forget() -> None:
        for name in set(sys.modules) - before:
            if str(RECORDS) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]

    def load(folder: str):
        forget()
        monkeypatch.setattr(sys, "path", [str(RECORDS / folder), *sys.path])
        return importlib.import_module("summarise")

    yield load
    forget()


@pytest.fixture(scope="module")
def report():
    """What the chapter's cells leave behind, and every (record, number) it asked for."""
    asked, ask = set(), evaluation.open_difference

    def listen(label, record, key, *rest, **more):
        asked.add((record, key))
        return ask(label, record, key, *rest, **more)

    scope: dict = {}
    with pytest.MonkeyPatch.context() as patch, plt.rc_context():
        patch.setattr(evaluation, "open_difference", listen)
        for cell in nbformat.read(CHAPTER, 4).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, CHAPTER.name, "exec"), scope)
        plt.close("all")
    return scope, asked


def first_part(study) -> dict[str, list[str]]:
    """Names of the differences by record, as the first part's summary makes them."""
    rows = Anything({"final": Anything({})})
    found = {f"study_losses_{100 * n:.0f}": study.losses(rows, n)[1] for n in study.NOISE}
    found["study_noise"] = study.robustness(rows)[1]
    for loss in ("F-PDLS", "PDLS"):
        found[f"study_priors_{loss.lower().replace('-', '')}"] = study.priors(rows, loss)[1]
    for view in ("upright", "turned"):
        found[f"study_gains_{view}"] = study.gains(rows)[1]
        for backbone in study.BACKBONES:
            found[f"study_resizers_{backbone}_{view}"] = study.resizers(rows, backbone)[1]
    names = {record: [contrast.name for contrast in some] for record, some in found.items()}
    curve = np.linspace(0.1, 0.3, 3).tolist()
    released = {name: curve for name in ("accuracy", "by faces", "loss")}
    halves = {half: curve for half in ("first", "second")}
    history = {**halves, **{f"released {half}": released for half in halves}}
    for network in ("residual-small", "vit behind the neural resizer"):
        judged = study.protocol(Anything({"history": history}), network)
        names[f"study_protocol_{network.split()[0].replace('-', '_')}"] = list(judged["numbers"])
    return names


def test_what_the_report_asks_for_is_what_the_studies_record(report, scripts):
    made = first_part(scripts("study"))
    wanted = {(record, key) for record, key in report[1] if record in made}
    assert len(wanted) > 40
    for record, key in sorted(wanted):
        name = key if record.startswith("study_protocol") else re.sub(r" \| [a-z ]*accuracy$", "", key)
        assert name in made[record], f"{record} will have no {key!r}"


def test_the_table_and_the_ledger_say_what_is_there(report):
    scope, _ = report
    claims, ledger = scope["claims"], scope["ledger"]
    assert len(claims) >= 20 and len(ledger) >= 12
    for claim in claims:
        assert claim.verdict in ("shown", "not shown", "shown the other way", "not run yet") or re.fullmatch(
            r"open: \d+ of \d+ not run yet", claim.verdict
        )
        run = [one for one in claim.differences if one.value is not None]
        assert claim.row().count(" points (") == len(run)  # no other number
    assert not [row for row in ledger if row.rstrip(" |").endswith("|")], "a row without its effect"
    assert not any("no difference" in row for row in [*ledger, *(claim.row() for claim in claims)])
