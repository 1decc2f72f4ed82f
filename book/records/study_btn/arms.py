"""The queue of the study's second part: every run, in the order in which they are done.

A run is an arm with a seed. Runs of one seed of a family see the same faces in the same order and begin with
the same weights where their networks have the same parts. Whole answers come early: a queue that is stopped
has answered the first questions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from maps import VARIANTS

from ferlib.training import Recipe

SEEDS = (0, 1, 2)
POOL = 12288  # faces whose maps are kept
SHARE = {"pretrained": 8192, "small": None, "drawn": 8192}  # faces a run learns from, each seed its own
LAMBDA, LAMBDAS = 5.0, (1.0, 25.0)  # the image's own loss in all runs, and where it is the question
LEARNING = 256  # faces of one optimiser step where the batch that attends is varied

#: What all runs have in common: AdamW, half an epoch of warm-up, cosine to zero, last epoch, one label.
BASE = Recipe(
    name="study_btn", loss="cross-entropy", targets="label", vit_weight=LAMBDA, batch_size=64, epochs=5,
    lr=2e-3, weight_decay=0.05, warmup=0.5, clip=5.0, augment="none", precision="fp32",
)  # fmt: skip
SMALL: dict[str, Any] = {"epochs": 4, "lr": 1.2e-3, "augment": "light", "augment_options": {"erase": 0.0}}

#: Arms of the structure: what a network has beside POSTER V2's parts.
STRUCTURE: dict[str, dict[str, Any]] = {
    "baseline": {"levels": "none", "batch": False},
    "MLA": {"batch": False},
    "BT": {"levels": "none"},
    "MLA + BT": {},
}
WHOLE = "MLA + BT"
CHOICES: dict[str, dict[str, Any]] = {
    "scale of 49": {"scale": 49},
    "no encoding": {"encoding": "none"},
    "learned encoding": {"encoding": "learned"},
    "MLA with values": {"levels": "with values"},
    "MLA at the same place": {"levels": "same place"},
}
RELEASED: dict[str, dict[str, Any]] = {
    "shortcut before the norm": {"shortcut": "input"},
    "nearest": {"landmarks": "nearest"},
    "random landmarks": {"landmarks": "random"},
    "drifting norms": {"landmarks": "drifting"},
    "drifting norms, from drawn faces": {"landmarks": "drifting from drawn faces"},
}


@dataclass(frozen=True)
class Job:
    """One run. ``family``: pretrained, small or drawn (small on drawn faces), or maps, which trains nothing.

    ``options`` of the network, ``changes`` to ``BASE``; ``noise``: share of wrong labels; ``full``: judged in
    other company and on altered faces, too.
    """

    question: str
    arm: str
    seed: int
    family: str
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    noise: float = 0.0
    full: bool = False
    keep: bool = False

    @property
    def key(self) -> str:
        """The run's name in the rows and on the command line."""
        end = "" if self.family == "maps" else f" | seed {self.seed}"
        return f"{self.question} | {self.arm}{end}"

    def recipe(self) -> Recipe:
        """What fit() follows."""
        own = {} if self.family == "pretrained" else SMALL
        return BASE.but(name=self.key, seed=self.seed, **{**own, **self.changes})

    def needs(self) -> list[str]:
        """Keys of the maps a run reads."""
        if self.family != "pretrained":
            return []
        variant = self.options.get("landmarks", "pretrained")
        return [f"maps | {part}" for part in ("face", f"landmarks {variant}")]


def maps(part: str, variant: str = "pretrained") -> Job:
    """Maps of one branch for all runs."""
    name = part if part == "face" else f"{part} {variant}"
    return Job("maps", name, 0, "maps", {"part": part, "variant": variant})


def arms(question: str, family: str, named: dict[str, dict[str, Any]], **rest: Any) -> list[Job]:
    """Networks by name, all seeds: the seeds come last, so that arms of one seed follow each other."""
    return [
        Job(f"{question} | {family}", name, seed, family, options, **rest)
        for seed in SEEDS
        for name, options in named.items()
    ]


def some(*names: str) -> dict[str, dict[str, Any]]:
    """Arms of the structure."""
    return {name: STRUCTURE[name] for name in names}


def noisy(family: str, share: float) -> list[Job]:
    """With and without the parts, with wrong labels."""
    named = {f"{name} | {100 * share:.0f} % wrong": options
             for name, options in some("baseline", WHOLE).items()}  # fmt: skip
    return arms("noise", family, named, noise=share)


def lambdas() -> list[Job]:
    """Other weights of the image's own loss."""
    return [
        job for value in LAMBDAS
        for job in arms("lambda", "pretrained", {f"lambda {value:g}": {}}, changes={"vit_weight": value})
    ]  # fmt: skip


def batches() -> list[Job]:
    """Every step learns from 256 faces; 8, 32 or all of them are one batch to batch attention.

    Nothing that learns here normalises over a batch, so that the baseline is the same network with each of
    them.
    """
    steps = {"batch_size": LEARNING, "accumulate": 1, "lr": 1.5 * BASE.lr, "epochs": 8}
    found = arms("batch", "pretrained", {"baseline": STRUCTURE["baseline"]}, changes=steps)
    for size in (8, LEARNING, 32):
        own = {**steps, "batch_size": size, "accumulate": LEARNING // size}
        found += arms("batch", "pretrained", {f"{WHOLE} | {size}": {}}, changes=own, full=True)
    return found


def queue() -> list[Job]:
    """All runs in order; what stands last is cut first."""
    jobs = [maps("face"), maps("landmarks"), *arms("structure", "pretrained", STRUCTURE, full=True)]
    jobs += [*noisy("pretrained", 0.4), *batches(), *lambdas()]
    jobs += arms("pose", "drawn", some("baseline", WHOLE))
    jobs += arms("choices", "pretrained", CHOICES)
    jobs += [maps("landmarks", variant) for variant in VARIANTS[1:]]
    jobs += arms("released", "pretrained", RELEASED)
    jobs += arms("structure", "small", some("baseline", WHOLE), full=True)
    jobs += [*noisy("pretrained", 0.2), *arms("structure", "small", some("MLA", "BT"), full=True)]
    return [*jobs, *noisy("small", 0.4)]
