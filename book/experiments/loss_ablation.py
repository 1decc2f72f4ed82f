"""Seven losses, three kinds of label, several seeds: accuracy and calibration of a small network.

    python -m book.experiments.loss_ablation                                              # drawn faces
    FERLIB_DATA=/path/to/FERPlus python -m book.experiments.loss_ablation --faces 8192    # real faces

The network reads faces at 28 pixels. It is trained with the majority label (``majority``), with the vote of
one annotator, drawn at random once per face (``one annotator``: wrong as people are wrong, what a cheaply
labelled data set has), or with majority labels of which ``--symmetric`` are replaced by another class, any
with the same chance (``at random``: wrong as a broken spreadsheet is). It is measured against the majority
label of the validation faces after the last epoch; no epoch is picked. ``votes`` is cross-entropy with all
ten votes, for comparison. Calibration error: mean distance between confidence and accuracy over 15 bins;
``to the votes``: between confidence and the share of annotators who agree. The bins over all seeds are
stored as ``extra["reliability"]``. Writes
``book/results/loss_ablation_<synthetic|ferplus>.json``: means over seeds with 95 % t-intervals, and the
differences to cross-entropy, paired by seed.
"""

from __future__ import annotations

import time

import torch
from torch import nn

from book.experiments import ablation, script
from ferlib.data import open_faces
from ferlib.evaluation import ResultRecord, summarize
from ferlib.losses import CompensatedFocalPDLSLoss, FocalPDLSLoss, LabelSmoothingLoss, PDLSLoss
from ferlib.models import FixedResizer

LOSSES = {
    "cross-entropy": nn.CrossEntropyLoss(),
    "label smoothing": LabelSmoothingLoss(0.9),
    "PDLS": PDLSLoss(0.5),
    "focal": FocalPDLSLoss(1.0, 2.0),  # with alpha 1 it is Lin et al.'s
    "F-PDLS": FocalPDLSLoss(0.8, 2.0),
    "compensated F-PDLS": CompensatedFocalPDLSLoss(0.5),
}


def label_kinds(y: torch.Tensor, shares: torch.Tensor, symmetric: float) -> dict[str, torch.Tensor]:
    """The same faces labelled three times: (N,), (N, K) -> three (N,)."""
    generator = torch.Generator().manual_seed(0)
    one_vote = torch.multinomial(shares, 1, generator=generator)[:, 0]
    other = (y + torch.randint(1, shares.shape[1], y.shape, generator=generator)) % shares.shape[1]
    broken = torch.rand(len(y), generator=generator) < symmetric
    return {"majority": y, "one annotator": one_vote, "at random": torch.where(broken, other, y)}


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("--faces", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--symmetric", type=float, default=0.4, help="share of labels replaced at random")
    options = parser.parse_args()
    start = time.perf_counter()
    data = {"train": open_faces("train", length=options.faces), "valid": open_faces("valid")}
    (x, y, shares), (vx, vy, vshares) = (ablation.load(faces) for faces in data.values())
    shrink = FixedResizer(28, "antialiased")
    x, vx = shrink(x), shrink(vx)
    labels = label_kinds(y, shares, options.symmetric)
    cases = {(kind, name): (loss, y) for kind, y in labels.items() for name, loss in LOSSES.items()}
    cases["majority", "votes"] = (nn.CrossEntropyLoss(), shares)
    scores: dict[tuple[str, str], dict[str, list[float]]] = {case: {} for case in cases}
    bins: dict[str, dict[str, list[list[float]]]] = {kind: {} for kind in labels}
    for (kind, name), (criterion, target) in cases.items():
        found = scores[kind, name]
        together = torch.zeros(15, 4, dtype=torch.float64)
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            model = ablation.SmallCNN(len(data["train"].classes))
            ablation.train(model, x, target, criterion, seed=seed, epochs=options.epochs, rate=4e-3)
            answers = ablation.logits(model, vx)
            together += torch.tensor(ablation.reliability(answers.softmax(1), vy, vshares))
            for metric, value in ablation.judged(answers, vy, vshares).items():
                found.setdefault(metric, []).append(value)
        bins[kind][name] = together.tolist()
        shown = [f"{100 * sum(found[m]) / options.seeds:.2f} %" for m in ("accuracy", "calibration error")]
        print(f"{kind:16s} {name:24s}", *shown, flush=True)
    record = ResultRecord(
        name=f"loss_ablation_{ablation.source()}",
        what="A small network under seven losses and three kinds of label: means over seeds, 95 % intervals",
        data=ablation.about(len(y), data["valid"]),
        classes=list(data["train"].classes),
        settings=vars(options) | {"optimizer": "AdamW 4e-3, one cycle, batch 64, flips", "face_size": 28},
        extra={
            "minutes": (time.perf_counter() - start) / 60,
            "wrong_labels": {name: float((hard != y).float().mean()) for name, hard in labels.items()},
            "reliability": bins,
        },
        versions=ablation.versions(),
        command=ablation.command(),
    )
    for (kind, name), found in scores.items():
        for metric, values in found.items():
            place = {"condition": kind, "over": "seeds"}
            record.add(metric, summarize(values), name, by_seed=tuple(values), **place)
            if name != "cross-entropy":
                gap = ablation.difference(values, scores[kind, "cross-entropy"][metric])
                record.add_difference(name, "cross-entropy", gap, metric, **place)
    print(record.save())


if __name__ == "__main__":
    main()
