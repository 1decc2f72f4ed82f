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
    name="study", loss="cross-entropy", targets="label", epochs=6, batch_size=64, optimizer="adamw",
    lr=1e-2, weight_decay=0.01, schedule="cosine", warmup=1.0, clip=5.0, augment="light",
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
TURNED = ("bilinear", "neural")  # fronts that are tried with a spatial transformer, too
BACKBONES = ("vit", "swin", "conv")
PRETRAINED = 12757  # faces a backbone learns from before; three shares of 4,096 are left, one a seed
LARGE = {"image_size": 96, "lr": 1e-3, "weight_decay": 0.05, "warmup": 0.5}  # behind a resizer


@dataclass(frozen=True)
class Job:
    """One run. ``changes`` to ``BASE``; ``faces`` None for all; ``after``: first training face to take."""

    question: str
    arm: str
    seed: int
    network: str = "residual-small"
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    faces: int | None = None
    after: int = 0
    drawn: int | None = None  # seed of the share of faces; the run's own if None
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
        return BASE.replace(name=self.key, seed=self.seed, **self.changes)


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


def pretraining(backbone: str) -> Job:
    """A backbone behind a resizer that draws its rule anew for each batch, so that no rule is at home."""
    options = {"resizer": "any rule", "spatial_transformer": False}
    changes = {**LARGE, "epochs": 10}
    return Job("resizers", f"{backbone} | pretraining", 0, backbone, options, changes, PRETRAINED, keep=True)


def protocol() -> list[Job]:
    """The released recipe's augmentation and loss, judged after every epoch in both ways."""
    changes = {**LOSSES["F-PDLS"], "augment": "neural-resizer", "augment_options": {}, "epochs": 12}
    fine = {**changes, **LARGE, "lr_scale": {"spatial_transformer": 0.03}, "epochs": 8}
    small = [Job("protocol", "residual-small", s, changes=changes, released=True) for s in SEEDS]
    return small + [
        Job("protocol", "vit behind the neural resizer", s, "vit", {"resizer": "neural"}, fine, 4096,
            after=PRETRAINED + 4096 * s, drawn=0, backbone=pretraining("vit").key, released=True)
        for s in SEEDS
    ]  # fmt: skip


def resizers(backbone: str) -> list[Job]:
    """A backbone pretrained on other faces behind four resizers, two of them with a spatial transformer.

    With vit, one more arm has the learned resizer read at the exact ratio.
    """
    start = pretraining(backbone)
    turns = {**LARGE, "epochs": 3, "augment_options": {"erase": 0.0, "rotation": 30.0}}
    arms: dict[str, dict[str, Any]] = {front: {"resizer": front} for front in FRONTS}
    if backbone == "vit":  # the neural resizer reads at the rounded factor; this one at the exact ratio
        arms["neural, exact size"] = {"resizer": "neural", "resizer_options": {"sampling": "exact-size"}}
    found = [start]
    for seed in SEEDS:
        for arm, options in arms.items():
            for stn in (False, True) if arm in TURNED else (False,):
                slow = {"lr_scale": {"spatial_transformer": 0.03}} if stn else {}
                found.append(
                    Job("resizers", f"{backbone} | {arm}{' | STN' if stn else ''}", seed, backbone,
                        {**options, "spatial_transformer": stn}, {**turns, **slow}, 4096,
                        after=PRETRAINED + 4096 * seed, drawn=0, backbone=start.key)
                )  # fmt: skip
    return found


def queue() -> list[Job]:
    """All runs in order."""
    known = [job for job in losses(0.0) if job.arm.startswith("F-PDLS")]
    judged = protocol()
    jobs = [*known, *priors("F-PDLS"), *losses(0.0), *resizers("vit"), *losses(0.4), *resizers("conv")]
    jobs += [job for job in judged if job.network == "residual-small"]
    jobs += [*resizers("swin"), *losses(0.2), *judged, *priors("PDLS")]
    return list({job.key: job for job in jobs}.values())
