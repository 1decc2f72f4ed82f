"""The queue of the study: every run it consists of, in the order in which they are done.

A run is an arm with a seed. Runs of one seed see the same faces in the same order with the same augmentation,
and begin with the same weights where their networks have the same parts: their differences are paired. All
seeds of a question's small set come before the next question begins, so that a queue that is stopped leaves
whole answers behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ferlib.training import Recipe

SEEDS = (0, 1, 2)

#: What all runs have in common, beside the network: one cycle of AdamW, gentle augmentation, last epoch.
BASE = Recipe(
    name="study", loss="cross-entropy", targets="label", epochs=6, batch_size=64, optimiser="adamw",
    lr=2e-3, weight_decay=0.05, schedule="cosine", warmup=1.0, clip=5.0, augment="light",
    augment_options={"erase": 0.0}, precision="bf16",
)  # fmt: skip

LOSSES: dict[str, dict[str, Any]] = {
    "cross-entropy": {},
    "label smoothing": {"loss": "label-smoothing", "loss_options": {"alpha": 0.9}},
    "PDLS": {"loss": "pdls", "loss_options": {"alpha": 0.5}},
    "focal": {"loss": "f-pdls", "loss_options": {"alpha": 1.0, "gamma": 2.0}},  # alpha 1: Lin et al.'s
    "F-PDLS": {"loss": "f-pdls", "loss_options": {"alpha": 0.8, "gamma": 2.0}},
    "compensated F-PDLS": {"loss": "compensated-f-pdls", "loss_options": {"alpha": 0.5}},
    "votes": {"targets": "votes"},
}
NOISE = (0.0, 0.4, 0.2)
PRIORS = ("label.csv", "another order")
FRONTS = ("bilinear", "bicubic", "antialiased", "neural")
BACKBONES = ("vit", "swin", "conv")
TRANSFORMER = {"image_size": 96, "lr": 1e-3, "warmup": 0.5}


@dataclass(frozen=True)
class Job:
    """One run. ``changes`` to ``BASE``; ``faces`` None for all; ``after``: first training face to take."""

    question: str
    arm: str
    seed: int
    network: str = "residual-small"
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    faces: int | None = 8192
    after: int = 0
    noise: float = 0.0
    prior: str = "published"
    backbone: str = ""  # key of the run that pretrained it
    keep: bool = False  # weights and checkpoints in the folder of runs
    released: bool = False  # judged after every epoch as the released code does, too

    @property
    def key(self) -> str:
        """The run's name in the rows and on the command line."""
        return f"{self.question} | {self.arm} | seed {self.seed}"

    def recipe(self) -> Recipe:
        """What fit() follows."""
        return BASE.but(name=self.key, seed=self.seed, **self.changes)


def losses(noise: float) -> list[Job]:
    """Seven losses at one share of wrong labels."""
    return [
        Job("losses", f"{name} | {100 * noise:.0f} % wrong", seed, changes=changes, noise=noise)
        for seed in SEEDS
        for name, changes in LOSSES.items()
    ]


def priors(loss: str) -> list[Job]:
    """A loss that uses the prior, with two others; the published one is among the losses."""
    return [
        Job("priors", f"{loss} | {name}", seed, changes=LOSSES[loss], prior=name)
        for seed in SEEDS
        for name in PRIORS
    ]


def baseline() -> list[Job]:
    """The plain residual network at full size: all faces, votes, eleven epochs."""
    changes = {"targets": "votes", "epochs": 11}
    return [Job("baseline", "residual", s, "residual", changes=changes, faces=None, keep=True) for s in SEEDS]


def protocol() -> list[Job]:
    """The released recipe's augmentation and loss, judged after every epoch in both ways."""
    changes = {**LOSSES["F-PDLS"], "augment": "neural-resizer", "augment_options": {}, "epochs": 15}
    vit = {**changes, **TRANSFORMER, "lr_scale": {"spatial_transformer": 0.03}, "epochs": 12}
    small = [Job("protocol", "residual-small", s, changes=changes, released=True) for s in SEEDS]
    return small + [
        Job("protocol", "vit behind the neural resizer", s, "vit", {"resizer": "neural"}, vit, 4096,
            released=True)
        for s in SEEDS
    ]  # fmt: skip


def resizers(backbone: str) -> list[Job]:
    """A backbone pretrained on other faces behind four resizers, with and without a spatial transformer."""
    found = []
    for seed in SEEDS:
        start = Job(
            "resizers", f"{backbone} | pretraining", seed, backbone,
            {"resizer": "any rule", "spatial_transformer": False}, {**TRANSFORMER, "epochs": 5}, keep=True,
        )  # fmt: skip
        found.append(start)
        turns = {**TRANSFORMER, "epochs": 3, "augment_options": {"erase": 0.0, "rotation": 30.0}}
        for stn in (False, True):
            lr = {"lr_scale": {"spatial_transformer": 0.03}} if stn else {}
            fronts = [(name, {"resizer": name}) for name in FRONTS]
            if not stn:  # the neural resizer reads at the rounded factor; this one at the exact ratio
                exact = {"resizer": "neural", "resizer_options": {"sampling": "exact-size"}}
                fronts.append(("neural, exact size", exact))
            for name, options in fronts:
                found.append(
                    Job("resizers", f"{backbone} | {name}{' | STN' if stn else ''}", seed, backbone,
                        {**options, "spatial_transformer": stn}, {**turns, **lr}, 4096, after=8192,
                        backbone=start.key)
                )  # fmt: skip
    return found


def queue() -> list[Job]:
    """All runs in order."""
    known = [job for job in losses(0.0) if job.arm.startswith("F-PDLS")]
    jobs = [*known, *priors("F-PDLS"), *losses(0.0), *losses(0.4), *priors("PDLS"), *baseline()]
    jobs += [*protocol(), *resizers("vit"), *resizers("conv"), *resizers("swin"), *losses(0.2)]
    return list({job.key: job for job in jobs}.values())
