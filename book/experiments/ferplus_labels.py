"""Count what FER+'s label files say, and recompute the prior matrix of the F-PDLS loss from them.

    python -m book.experiments.ferplus_labels --data /path/to/FERPlus

Needs the label files of Microsoft's FERPlus repository (``fer2013new.csv`` and
``data/FER2013*/label.csv``), no images. Counts faces per class, split and rule, compares the two vote
files row by row, and recomputes the prior. Writes ``book/results/ferplus_labels.json``, in a few seconds.
Splits whose ``label.csv`` is missing are named.
"""

from __future__ import annotations

from pathlib import Path

import torch

from book.experiments import script
from ferlib.data.ferplus import SPLITS, USAGE, microsoft_folder, read_fer2013new, read_label_csv
from ferlib.data.labels import EMOTIONS_FERPLUS, LABEL_RULES, confusion_prior, majority_label
from ferlib.evaluation import ResultRecord
from ferlib.losses import FERPLUS_PRIOR

NAME = "ferplus_labels"
# Counted with all three label.csv at hand; run this script on the whole repository to count it again.
ALL_SPLITS = {"images": 35_710, "that differ": 1_602}


def count(votes: torch.Tensor, rule: str) -> list[int]:
    """Faces per class, and at the end those the rule leaves without a label."""
    labels = majority_label(votes, rule)
    return torch.bincount(torch.where(labels < 0, 8, labels), minlength=9).tolist()


def agreement(votes: torch.Tensor) -> dict[str, list[float]]:
    """Per class by the half rule: the share of its faces with 5, 6, ... 10 of ten votes for it."""
    labels = majority_label(votes, "half")
    found = {}
    for k, name in enumerate(EMOTIONS_FERPLUS):
        share = votes[labels == k, k] / votes[labels == k].sum(1)
        levels = torch.arange(5, 11) / 10
        found[name] = [round(float(((share - level).abs() < 0.05).float().mean()), 4) for level in levels]
    return found


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("--data", required=True, type=Path, help="clone of Microsoft's FERPlus repository")
    options = parser.parse_args()

    usage, names, votes = read_fer2013new(options.data / "fer2013new.csv")
    rows = {name: i for i, name in enumerate(names) if name}
    split_of = {u: s for s, u in USAGE.items()}
    where = [split_of[u] if n else "" for u, n in zip(usage, names, strict=True)]
    new = {split: votes[[i for i, w in enumerate(where) if w == split]] for split in SPLITS}
    folders = {
        s: f for s in SPLITS if (f := microsoft_folder(options.data, s)) and (f / "label.csv").is_file()
    }

    by_rule: dict[str, dict[str, dict[str, list[int]]]] = {
        "fer2013new.csv": {rule: {s: count(new[s], rule) for s in SPLITS} for rule in LABEL_RULES},
        "label.csv": {rule: {} for rule in LABEL_RULES},
    }
    differ, prior_of_label_csv = {}, None
    for split, folder in folders.items():
        listed, theirs, _ = read_label_csv(folder / "label.csv")
        for rule in LABEL_RULES:
            by_rule["label.csv"][rule][split] = count(theirs, rule)
        other = votes[[rows[name] for name in listed]]
        differ[split] = {"images": len(listed), "that differ": int((theirs != other).any(1).sum())}
        if split == "train":
            prior_of_label_csv = confusion_prior(theirs)

    prior = confusion_prior(new["train"])
    fear, surprise = EMOTIONS_FERPLUS.index("fear"), EMOTIONS_FERPLUS.index("surprise")
    record = ResultRecord(
        name=NAME,
        what="FER+ faces per class, split and rule; the two vote files compared; the prior from the votes.",
        data={"name": "FER+ label files", "splits with label.csv": list(folders)},
        classes=list(EMOTIONS_FERPLUS),
        settings={"rules": list(LABEL_RULES), "prior rule": "half, training rows of fer2013new.csv"},
        extra={
            "counts": by_rule,
            "counts columns": [*EMOTIONS_FERPLUS, "no label"],
            "vote files differ": differ,
            "vote files differ, all splits": ALL_SPLITS,
            "prior": [[round(v, 6) for v in row] for row in prior.tolist()],
            "prior, faces": int((majority_label(new["train"], "half") >= 0).sum()),
            "prior, largest difference to published": float((prior - FERPLUS_PRIOR).abs().max()),
            "prior of label.csv, largest difference to published": None
            if prior_of_label_csv is None
            else float((prior_of_label_csv - FERPLUS_PRIOR).abs().max()),
            "fear to surprise": float(prior[fear, surprise]),
            "agreement levels": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
            "agreement": agreement(new["train"]),
        },
        versions={"torch": torch.__version__},
        command="python -m book.experiments.ferplus_labels --data /path/to/FERPlus",
    )
    path = record.save()
    largest = record.extra["prior, largest difference to published"]
    print(f"{path}: prior of {record.extra['prior, faces']:,} faces, largest difference {largest:.1e}")
    print("vote files differ:", differ, "in all splits:", ALL_SPLITS)


if __name__ == "__main__":
    main()
