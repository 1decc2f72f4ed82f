"""The best classifiers: which candidate one half of validation prefers, and its score on the other half.

    FERLIB_DATA=FERPLUS FERLIB_WEIGHTS=WEIGHTS python -m book.experiments.best_classifiers \\
        --alone runs/pocket-0 runs/pocket-1 runs/pocket-2 --branches runs/two-branches

Takes folders of finished runs, each with its weights after the last epoch: no epoch is chosen. ``--alone``
is trained on FER+'s training faces and nothing else; ``--branches`` begins with both pretrained branches.
Candidates are each network, each averaged over the face and its mirror image, and means of several. We select
on one half of the validation set and report accuracy on the other half, and on all of it beside. FER+'s test
faces are left to the reader. Writes ``book/results/best_classifiers.json``; ``keep.py`` keeps what won.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import RandomHorizontalFlip

from ferlib.commands.networks import Network
from ferlib.data import FERPlus
from ferlib.data.base import FaceDataset
from ferlib.data.faces import KeptFaces
from ferlib.evaluation import ResultRecord, about, compare, predict, scores
from ferlib.models.pocket import averaged
from ferlib.training import versions

ALONE, BRANCHES = "from these faces alone", "with two pretrained branches"
SEED, MIRRORED = ", seed ", ", mirrored"  # in the names of candidates
METRICS = ("accuracy", "mean class accuracy", "expected calibration error")
Said = dict[str, Tensor]  # candidate -> its log probabilities (N, K)


def main() -> None:
    parser = argparse.ArgumentParser(description="Which candidate one half of validation prefers.")
    parser.add_argument("--alone", nargs="+", required=True, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--branches", nargs="+", default=[], metavar="RUN")
    given = parser.parse_args()
    torch.set_num_threads(1)
    valid = KeptFaces(FERPlus(os.environ["FERLIB_DATA"], "valid"))
    alone = answers_of(given.alone, valid)
    alone |= mean_of(alone)
    kinds = {ALONE: alone}
    if given.branches:
        branches = answers_of(given.branches, valid)
        kinds[BRANCHES] = branches | beside(branches, alone[preferred(alone, valid)])
    record = judge(kinds, valid)
    record.extra["members"] = [member(run) for run in (*given.alone, *given.branches)]
    print(record.save())
    for kind, name in record.extra["chosen"].items():
        found = [record.get("accuracy", name, part).percent() for part in ("second half", "all")]
        print(f"{kind}: {name}: {found[0]}; all of validation {found[1]}")


def answers_of(runs: list[str], valid: FaceDataset) -> Said:
    """Each run's predictions for all faces: as they are, and averaged with their mirror images."""
    said: Said = {}
    for run in runs:
        network = Network.find(str(Path(run) / "last.safetensors"))
        model = network.build(len(valid.classes))
        mirror = nn.Sequential(RandomHorizontalFlip(p=1.0), model)  # turns every face of a batch round
        plain, turned = (predict(asked, valid, **network.inputs())[0] for asked in (model, mirror))
        name = f"{network.recipe.name.removesuffix('-ferplus')}{SEED}{network.recipe.seed}"
        said |= {name: plain, name + MIRRORED: averaged([plain, turned])}
        print(name, flush=True)
    return said


def mean_of(said: Said) -> Said:
    """Means of networks with mirror images: those of each recipe, and all."""
    twice = {name: logits for name, logits in said.items() if name.endswith(MIRRORED)}
    groups: dict[str, list[Tensor]] = {}
    for name, logits in twice.items():
        groups.setdefault(f"of {name.split(SEED)[0]}", []).append(logits)
    if len(groups) > 1:
        groups["in all"] = list(twice.values())
    return {
        f"mean of {len(several)} {words}{MIRRORED}": averaged(several)
        for words, several in groups.items()
        if len(several) > 1
    }


def beside(said: Said, best: Tensor) -> Said:
    """Each network with mirror images, averaged with the best of another kind at weight one or three."""
    found: Said = {}
    for name, logits in said.items():
        if name.endswith(MIRRORED):
            for voices, words in ((1, ""), (3, ", three times")):
                own = name.removesuffix(MIRRORED)
                found[f"{own}, and the best above{words}"] = averaged([logits, *[best] * voices])
    return found


def halves(faces: FaceDataset) -> tuple[Tensor, Tensor]:
    """Two halves with as many faces of each class, the same ones in every run: rows of first and second."""
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
    by_class = order[faces.labels[order].argsort(stable=True)]
    return by_class[::2].sort().values, by_class[1::2].sort().values


def preferred(said: Said, valid: FaceDataset) -> str:
    """The candidate with the most right answers in the first half of validation."""
    rows = halves(valid)[0]
    labels = torch.as_tensor(valid.labels)[rows]
    return max(said, key=lambda name: int((said[name][rows].argmax(1) == labels).sum()))


def judge(kinds: dict[str, Said], valid: FaceDataset) -> ResultRecord:
    """Scores of all candidates on both halves, and of each kind the one that the first half prefers."""
    labels, classes = torch.as_tensor(valid.labels), list(valid.classes)
    first, second = halves(valid)
    parts = {"first half": first, "second half": second, "all": torch.arange(len(labels))}
    chosen: dict[str, str] = {}
    record = ResultRecord(
        name="best_classifiers",
        what="candidates for the best classifier: one half of validation chooses, the other judges",
        data=about(valid, "valid"),
        classes=classes,
        settings={"resamples": 1000},
        extra={
            "chosen": chosen,
            "candidates": {kind: list(said) for kind, said in kinds.items()},
            "faces": {part: len(rows) for part, rows in parts.items()},
        },
        versions=versions(),
        command="python -m book.experiments.best_classifiers --alone RUN RUN RUN --branches RUN",
    )
    for kind, said in kinds.items():
        for name, logits in said.items():
            for part, rows in parts.items():
                found = scores(labels[rows], logits[rows], classes, resamples=1000)
                for metric in METRICS:
                    record.add(metric, found[metric], name, condition=part, over="faces")
        chosen[kind] = preferred(said, valid)
        simplest = next(iter(said))
        for part in ("second half", "all"):
            rows = parts[part]
            pair = (said[n][rows] for n in (chosen[kind], simplest))
            found = compare(labels[rows], *pair, classes, resamples=1000).difference
            record.add_difference(chosen[kind], simplest, found, condition=part, over="faces")
    return record


def member(run: str) -> dict[str, Any]:
    """Which run it is and what it took, from the run's folder."""
    recipe = Network.find(str(Path(run) / "last.safetensors")).recipe
    lines = (Path(run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line) for line in lines]
    hours = sum(epoch["seconds"] for epoch in epochs) / 3600
    return {"recipe": recipe.name, "seed": recipe.seed, "epochs": len(epochs), "hours on one core": hours}


if __name__ == "__main__":
    main()
