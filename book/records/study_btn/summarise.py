"""From the rows of the study's second part to records: one for every question whose runs are complete.

    FERLIB_DATA=/path/to/FERPlus python book/records/study_btn/summarise.py

Writes ``book/results/study_btn_<question>.json``; a question that lacks a run is named and left out. Each
record says what stood in the place of IR50, whose weights were not to be had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import beside  # noqa: F401
import records
import views
import worker
from arms import CHOICES, LAMBDA, LAMBDAS, LEARNING, RELEASED, SEEDS, WHOLE, queue
from contrasts import Contrast, Faces, Runs, judge, minus
from faces import fingerprint
from maps import SETS
from run import POSES, ROWS, split

from ferlib.evaluation import ResultRecord, about, summarise

COMMAND = "FERLIB_DATA=/path/to/FERPlus python book/records/study_btn/summarise.py"
FACE_BRANCH = {
    "pretrained": "dlib's face-recognition network, frozen; IR50's weights were not to be had",
    "small": "a residual pyramid from nothing; IR50's weights were not to be had",
    "drawn": "a residual pyramid from nothing; IR50's weights were not to be had",
}
BT, CBA, OWN = "bt", "cba", "own"
COMPANIES = (*views.COMPANY, f"reference {views.REFERENCE}")
Rows = dict[str, Any]


class Answers:
    """Answers of arms, each as ``judge`` takes a run; raises KeyError for a run that is not done."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.runs = rows, {}

    def add(self, name: str, arm: str, answer: str, faces: str = views.UPRIGHT, company: str = views.MAIN):
        """One answer of an arm (``question | family | arm``) under a name; returns the name."""
        found = records.runs_of(self.rows, [arm], SEEDS)[arm]
        key = views.view(faces, answer, company)
        self.runs[name] = [{**row, "final": {"upright": row["final"][key]}} for row in found]
        return name

    def both(self, name: str, arm: str, **where: str) -> tuple[str, str]:
        """The answer with the batch and the image's own, as ``name, bt`` and ``name, own``."""
        return self.add(f"{name}, {BT}", arm, BT, **where), self.add(f"{name}, {OWN}", arm, OWN, **where)


Asked = tuple[Runs, list[Contrast]]


def pairs(couples: Iterable[tuple[str, str]]) -> list[Contrast]:
    """Differences that are asked together."""
    couples = list(couples)
    return [minus(one, other, len(couples)) for one, other in couples]


def change(one: tuple[str, str], other: tuple[str, str], family: int) -> Contrast:
    """What a change from the second to the first does to ``one``, less what it does to ``other``."""
    signs = dict.fromkeys((*one, *other), 0.0)
    for name, sign in zip((*one, *other), (1.0, -1.0, -1.0, 1.0), strict=True):
        signs[name] += sign
    return Contrast(f"({one[0]} - {one[1]}) - ({other[0]} - {other[1]})", signs, family)


def structure(rows: Rows, family: str) -> Asked:
    """Four structures; the batch's answers and the image's own."""
    some, arm = Answers(rows), f"structure | {family} | "
    for name in ("baseline", "MLA"):
        some.add(name, arm + name, OWN)
    for name in ("BT", WHOLE):
        some.both(name, arm + name)
        some.add(f"{name}, {CBA}", arm + name, CBA)
    whole = f"{WHOLE}, "
    return some.runs, pairs([
        ("MLA", "baseline"), ("BT, bt", "baseline"), (whole + BT, "baseline"), (whole + BT, "MLA"),
        (whole + BT, "BT, bt"), (whole + OWN, "MLA"), (whole + BT, whole + OWN), (whole + CBA, whole + OWN),
    ])  # fmt: skip


def pair(rows: Rows, family: str) -> Asked:
    """Both parts against none, where the parts alone are not asked."""
    some, arm = Answers(rows), f"structure | {family} | "
    base = some.add("baseline", f"{arm}baseline", OWN)
    answer, own = some.both(WHOLE, arm + WHOLE)
    some.add(cba := f"{WHOLE}, {CBA}", arm + WHOLE, CBA)
    return some.runs, pairs([(answer, base), (own, base), (answer, own), (cba, own)])


def lambdas(rows: Rows) -> Asked:
    """Three weights of the image's own loss."""
    some, found = Answers(rows), []
    main = some.both(f"lambda {LAMBDA:g}", f"structure | pretrained | {WHOLE}")
    for value in LAMBDAS:
        name = f"lambda {value:g}"
        found += zip(some.both(name, f"lambda | pretrained | {name}"), main, strict=True)
    return some.runs, pairs(found)


def noise(rows: Rows, family: str, share: float) -> Asked:
    """Wrong labels: with the batch against without, and what they cost each."""
    some, end = Answers(rows), f"{100 * share:.0f} % wrong"
    clean = some.add("baseline | 0 %", f"structure | {family} | baseline", OWN)
    base = some.add(f"baseline | {end}", f"noise | {family} | baseline | {end}", OWN)
    right = some.both(f"{WHOLE} | 0 %", f"structure | {family} | {WHOLE}")
    wrong = some.both(f"{WHOLE} | {end}", f"noise | {family} | {WHOLE} | {end}")
    costs = [change((w, r), (base, clean), 2) for w, r in zip(wrong, right, strict=True)]
    return some.runs, pairs([(wrong[0], base), (wrong[1], base), wrong]) + costs


def batches(rows: Rows) -> Asked:
    """Batches of other sizes in training, the optimiser's step being the same."""
    some, arm, found = Answers(rows), "batch | pretrained | ", []
    base = some.add("baseline", f"{arm}baseline", OWN)
    for size in (8, 32, LEARNING):
        found += [(name, base) for name in some.both(f"{WHOLE} of {size}", f"{arm}{WHOLE} | {size}")]
    return some.runs, pairs(found)


def company(rows: Rows, arm: str, answer: str) -> Asked:
    """One answer of the same networks in other company, against the image's own."""
    some = Answers(rows)
    own = some.add(OWN, arm, OWN)
    names = [some.add(f"{answer}, {where}", arm, answer, company=where) for where in COMPANIES]
    return some.runs, pairs((name, own) for name in names)


def hard(rows: Rows, kind: str, without: str, whole: str) -> Asked:
    """Faces that are hard to read: with the batch against without, and what the difficulty costs each."""
    some = Answers(rows)
    base = [some.add(f"baseline | {faces}", without, OWN, faces) for faces in (kind, views.UPRIGHT)]
    both = [some.both(f"{WHOLE} | {faces}", whole, faces=faces) for faces in (kind, views.UPRIGHT)]
    asked = some.add(f"{WHOLE} | {kind}, reference", whole, BT, kind, COMPANIES[-1])
    upright = some.add(f"{WHOLE} | upright, reference", whole, BT, company=COMPANIES[-1])
    found = [(asked, base[0]), (both[0][0], base[0]), (both[0][1], base[0])]
    costs = [(asked, upright), *zip(*both, strict=True)]
    return some.runs, pairs(found) + [change(one, (base[0], base[1]), len(costs)) for one in costs]


def against(rows: Rows, question: str, names: Iterable[str]) -> Asked:
    """Other choices against the whole network as it is, both answers."""
    some, found = Answers(rows), []
    main = some.both("as it is", f"structure | pretrained | {WHOLE}")
    for name in names:
        found += zip(some.both(name, f"{question} | pretrained | {name}"), main, strict=True)
    return some.runs, pairs(found)


def spread(rows: Rows, arms: dict[str, str]) -> dict[str, Any]:
    """How single answers vary over 50 random batches of 64: over seeds, no faces are drawn."""
    found: dict[str, Any] = {"numbers": {}, "shown": {}, "scores": {}}
    for name, arm in arms.items():
        some = records.runs_of(rows, [arm], SEEDS)[arm]
        for key in some[0]["measured"]:
            found["scores"][f"{name} | {key}"] = values = [row["measured"][key] for row in some]
            found["numbers"][f"{name} | {key}"] = summarise(values)
    return found


def plans(rows: Rows) -> dict[str, tuple[str, str, Callable[[], Asked]]]:
    """Every record of differences: name -> what it says, family, and how it is put together."""
    found: dict[str, tuple[str, str, Callable[[], Asked]]] = {}

    def plan(name: str, what: str, family: str, make: Callable[..., Asked], *given: Any) -> None:
        found[f"{name}_{family}"] = (what, family, lambda: make(rows, *given))

    for family in ("pretrained", "small"):
        arm = f"structure | {family} | "
        plan("structure", "POSTER V2's structure, with MLA, the batch transformer, both", family, structure,
             family)  # fmt: skip
        for answer in (BT, CBA):
            plan(f"company_{answer}", f"The answer {answer} in other company", family, company, arm + WHOLE,
                 answer)  # fmt: skip
        for kind in SETS[2:]:
            plan(f"hard_{kind.split()[0]}", f"Faces made harder to read: {kind}", family, hard, kind,
                 arm + "baseline", arm + WHOLE)  # fmt: skip
        for share in (0.4, 0.2) if family == "pretrained" else (0.4,):
            told = f"{100 * share:.0f} % wrong labels"
            plan(f"noise_{100 * share:.0f}", told, family, noise, family, share)
    plan("pair", "POSTER V2's structure, with both parts and without", "small", pair, "small")
    for kind in POSES:
        plan(kind.replace(" ", "_"), f"Drawn faces turned to the side: {kind}", "drawn", hard, kind,
             "pose | drawn | baseline", f"pose | drawn | {WHOLE}")  # fmt: skip
    plan("lambda", "Three weights of the image's own loss", "pretrained", lambdas)
    plan("batch", "Other batch sizes in training", "pretrained", batches)
    first = [name for name in CHOICES if not name.startswith("MLA")]
    rest = [name for name in CHOICES if name.startswith("MLA")]
    plan("scale_encoding", "Another scale, other encodings", "pretrained", against, "choices", first)
    plan("reconstructions", "Other reconstructions of MLA", "pretrained", against, "choices", rest)
    drawn = [name for name in RELEASED if name.endswith("drawn faces")]
    others = [name for name in RELEASED if name not in drawn]
    plan("released", "What the released code does", "pretrained", against, "released", others)
    plan("drift", "Batch norms that drifted on drawn faces", "pretrained", against, "released", drawn)
    return found


def main() -> None:
    rows, valid = worker.rows(ROWS), split("valid")
    if other := {row["data"] for row in rows.values()} - {fingerprint(valid)}:
        raise SystemExit(f"rows were judged on other faces ({', '.join(other)}) than FERLIB_DATA holds")
    fixed = {"seeds": SEEDS, "command": COMMAND}
    for name, (what, family, make) in plans(rows).items():
        try:
            runs, contrasts = make()
        except KeyError as missing:
            print(f"study_btn_{name}: not yet, {missing} is missing")
            continue
        data = split("drawn test") if family == "drawn" else valid
        about_data = {"data_name": "SyntheticFaces", "split": "test"} if family == "drawn" else {}
        found = judge(runs, contrasts, Faces(data.labels.numpy(), len(data.classes)))
        found["face branch"] = FACE_BRANCH[family]
        told = f"{what} ({family}): 3 seeds, paired"
        records.save(f"study_btn_{name}", told, found, runs, data, **fixed, **about_data)
    sizes = {f"{WHOLE} of {size}": f"batch | pretrained | {WHOLE} | {size}" for size in (8, 32, LEARNING)}
    for slug, family, arms in (
        ("spread_pretrained", "pretrained", {WHOLE: f"structure | pretrained | {WHOLE}"}),
        ("spread_small", "small", {WHOLE: f"structure | small | {WHOLE}"}),
        ("spread_batch_pretrained", "pretrained", sizes),
    ):
        try:
            found = spread(rows, arms)
            runs = {name: records.runs_of(rows, [arm], SEEDS)[arm] for name, arm in arms.items()}
        except KeyError as missing:
            print(f"study_btn_{slug}: not yet, {missing} is missing")
            continue
        found["face branch"] = FACE_BRANCH[family]
        told = f"One face's answer in {views.ROUNDS} random batches of 64 ({family}): 3 seeds"
        records.save(f"study_btn_{slug}", told, found, runs, valid, **fixed)
    if trained := {key: row for key, row in rows.items() if "recipe" in row}:
        jobs = [job for job in queue() if job.family != "maps"]
        spent = ResultRecord(
            name="study_btn_cost", what="What the finished runs of the study's second part cost, by question",
            data=about(valid, "valid") | {"name": "FER+"}, settings={"seeds": list(SEEDS)},
            extra={"questions": records.costs(trained, jobs),
                   "maps": {key: {k: row[k] for k in ("bytes", "seconds", "processor seconds")}
                            for key, row in rows.items() if "bytes" in row}},
            versions=next(iter(trained.values()))["versions"],
            date=max(row["date"] for row in rows.values()), command=COMMAND,
        )  # fmt: skip
        print(spent.save())


if __name__ == "__main__":
    main()
