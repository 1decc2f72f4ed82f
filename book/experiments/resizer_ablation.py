"""Resizer x spatial transformer: faces of 48 pixels before a pretrained transformer that reads 28, by seed.

    python -m book.experiments.resizer_ablation
    FERLIB_DATA=/path/to/FERPlus python -m book.experiments.resizer_ablation --pretraining 16384 --passes 5

The paper's experiment, every size divided by eight: 48 to 28 pixels is 384 to 224, the same factor 0.584. A
small transformer is first trained on upright faces, reduced to 28 pixels by the antialiased rule (once; it is
the pretrained backbone of all runs, and gives that rule a home advantage). Then, with a new head, it is
trained on other faces, turned by up to ``--tilt`` degrees either way, behind each of four resizers, with and
without a spatial transformer before it. ``layers after bilinear`` is the Neural Resizer applied to the face
bilinear has already reduced: as many layers, but it never sees the 48 pixels, so it shows what mere depth is
worth. All see the same faces in the same order, turned alike, and are measured on the validation faces,
upright and turned, after the last epoch (no epoch is picked). Writes
``book/results/resizer_ablation_<synthetic|ferplus>.json``: mean accuracy over seeds with the 95 % t-interval,
and differences, paired by seed.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import torch
from torch import nn

from book.experiments import ablation, script
from ferlib.data import open_faces
from ferlib.evaluation import ResultRecord, summarize
from ferlib.models import FixedResizer, NeuralResizer, SpatialTransformer

LARGE, SMALL = 48, 28
FIXED = ("bilinear", "bicubic", "antialiased")
AFTER = "layers after bilinear"
STN = " + STN"  # behind the name of a resizer
CASES = [(front, stn) for stn in (False, True) for front in (*FIXED, "neural resizer")] + [(AFTER, False)]


def resizer(front: str) -> nn.Module:
    """(B, 1, 48, 48) -> (B, 1, 28, 28)."""
    if front in FIXED:
        return FixedResizer(SMALL, front)
    options = {"channels": 6, "in_channels": 1, "start_bilinear": True}
    if front == AFTER:
        return nn.Sequential(FixedResizer(SMALL, "bilinear"), NeuralResizer(SMALL, SMALL, **options))
    return NeuralResizer(LARGE, SMALL, **options)


class System(nn.Module):
    """Spatial transformer or nothing, resizer, backbone: (B, 1, 48, 48) -> (B, K)."""

    def __init__(self, front: str, stn: bool, backbone: ablation.SmallTransformer, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = copy.deepcopy(backbone)
        self.backbone.head.reset_parameters()  # the same new head behind every front of this seed
        self.stn = SpatialTransformer(LARGE, in_channels=1) if stn else nn.Identity()
        self.resizer = resizer(front)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.backbone(self.resizer(self.stn(x)))

    def groups(self) -> list[dict]:
        """Learning rates: the spatial transformer learns slowly, or it turns the faces out of the picture."""
        rates = {"stn": 1e-3, "resizer": 2e-3, "backbone": 1e-3}
        parts = {name: list(getattr(self, name).parameters()) for name in rates}
        return [{"params": parts[name], "lr": rate} for name, rate in rates.items() if parts[name]]


def pairs() -> Iterator[tuple[str, str]]:
    """The planned contrasts: rule by rule, spatial transformer or not, depth or resizing."""
    for stn in ("", STN):
        for front in ("bicubic", "antialiased", "neural resizer"):
            yield front + stn, f"bilinear{stn}"
    for front in (*FIXED, "neural resizer"):
        yield front + STN, front
    yield AFTER, "bilinear"
    yield "neural resizer", AFTER


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("--pretraining", type=int, default=4096, help="faces of the backbone's own training")
    parser.add_argument("--passes", type=int, default=8, help="epochs of the backbone's own training")
    parser.add_argument("--faces", type=int, default=3072)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--tilt", type=float, default=30.0, help="degrees either way")
    options = parser.parse_args()
    start = time.perf_counter()
    faces, valid = open_faces("train", length=options.pretraining + options.faces), open_faces("valid")
    classes = list(faces.classes)
    x, y, _ = ablation.load(faces)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    first, second = order[: options.pretraining], order[options.pretraining :]
    vx, vy, _ = ablation.load(valid)
    degrees = options.tilt * (2 * torch.rand(len(vx), generator=torch.Generator().manual_seed(1)) - 1)
    views = {"upright": vx, "turned": ablation.turned(vx, degrees)}

    torch.manual_seed(0)
    backbone, shrink = ablation.SmallTransformer(len(classes)), FixedResizer(SMALL, "antialiased")
    loss = nn.CrossEntropyLoss()
    ablation.train(backbone, shrink(x[first]), y[first], loss, seed=0, epochs=options.passes, rate=2e-3)
    alone = {
        view: (ablation.logits(backbone, shrink(v)).argmax(1) == vy).double().mean().item()
        for view, v in views.items()
    }
    print(
        "the pretrained transformer:", alone, f"{(time.perf_counter() - start) / 60:.1f} minutes", flush=True
    )

    found: dict[tuple[str, str], list[float]] = {}
    degrees_found: dict[str, list[float]] = {}
    for front, stn in CASES:
        for seed in range(options.seeds):
            model = System(front, stn, backbone, seed)
            ablation.train(
                model,
                x[second],
                y[second],
                loss,
                seed=seed,
                epochs=options.epochs,
                rate=model.groups(),
                tilt=options.tilt,
            )
            for view, v in views.items():
                right = (ablation.logits(model, v).argmax(1) == vy).double().mean().item()
                found.setdefault((front + STN * stn, view), []).append(right)
            if stn:
                degrees_found.setdefault(front, []).append(undone(model, views["turned"], degrees))
        shown = {view: f"{100 * sum(found[front + STN * stn, view]) / options.seeds:.2f}" for view in views}
        print(front + STN * stn, shown, degrees_found.get(front, "") if stn else "", flush=True)
    record = ResultRecord(
        name=f"resizer_ablation_{ablation.source()}",
        what="Accuracy of a small pretrained transformer behind four resizers, with and without a spatial "
        "transformer, on upright and on turned faces: mean over seeds, 95 % t-interval",
        data=ablation.about(options.faces, valid),
        classes=classes,
        settings=vars(options)
        | {"optimizer": "AdamW 1e-3 (resizer 2e-3, spatial transformer 1e-3), one cycle, batch 64, flips"},
        extra={
            "minutes": (time.perf_counter() - start) / 60,
            "pretrained": alone,
            "slope": degrees_found,
            "parameters": {front: sum(p.numel() for p in resizer(front).parameters()) for front, _ in CASES}
            | {"spatial transformer": sum(p.numel() for p in SpatialTransformer(LARGE, 1).parameters())},
        },
        versions=ablation.versions(),
        command=ablation.command(),
    )
    for (arm, view), values in found.items():
        record.add("accuracy", summarize(values), arm, condition=view, over="seeds", by_seed=tuple(values))
    for view in views:
        for one, other in pairs():
            gap = ablation.difference(found[one, view], found[other, view])
            record.add_difference(one, other, gap, condition=view, over="seeds")
    print(record.save())
    print(record.table())


@torch.no_grad()
def undone(model: System, faces: torch.Tensor, degrees: torch.Tensor) -> float:
    """Slope of the tilt the spatial transformer takes back on the tilt there is: 1 is all of it, 0 none."""
    theta = torch.cat([model.stn.theta(part) for part in faces.split(256)])
    angle = torch.rad2deg(torch.atan2(theta[:, 1, 0] - theta[:, 0, 1], theta[:, 0, 0] + theta[:, 1, 1]))
    return float(-(degrees * (angle - angle.mean())).sum() / (degrees * (degrees - degrees.mean())).sum())


if __name__ == "__main__":
    main()
