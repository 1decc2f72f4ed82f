"""Experiment 1: does batch attention help? POSTER V2's fusion on frozen maps, with and without BTN's parts.

Every network reads the kept maps of a face (``maps``). Arms: A has neither part; "A again" is A with other
seeds; B has the three losses and the doubled logits of the batch transformer, but attention is the identity;
C has the batch transformer; D has multi-level attention, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from book.experiments import maps
from book.experiments.faces import LABELS, Faces, grouped_folds, without_twins
from book.experiments.harness import Checkpoint, Row, Run, pack, resumed_epochs
from book.experiments.measures import measure
from ferlib.evaluation.suites import corrupt as corrupt_images
from ferlib.models import BatchTransformer, MultiLevelAttention
from ferlib.models.poster_v2 import LevelFusion, TokenTransformer

NAME = "batch_attention"
DIM, HEADS, DEPTH, GRID = 48, 2, 2, 7
EPOCHS, BATCH, RATE, WEIGHT_DECAY, DROPOUT = 4, 64, 1e-3, 0.05, 0.1
LAMBDA = 5.0
FOLDS, REPEATS, SHUFFLES, REFERENCE = 5, 3, 20, 256
CORRUPTIONS = {"occlusion": 3, "resolution": 2, "darkness": 3, "noise": 2}
CORRUPTED, CORRUPTED_SEED = 8000, 11
FRAMES, CONTROL_STEPS, CONTROL_KEEP, CONTROL_NOISE, CONTROL_MARK = 8, (600, 1000), 0.25, 2.0, 3.0


@dataclass(frozen=True)
class Arm:
    """Which parts a network has; ``batch`` is "none", "identity" or "attention"."""

    levels: bool = False
    batch: str = "none"


ARMS = {
    "A": Arm(),
    "A again": Arm(),
    "B": Arm(batch="identity"),
    "C": Arm(batch="attention"),
    "D": Arm(levels=True, batch="attention"),
}


def runs() -> list[Run]:
    """The queue: the control, then whole repeats of the primary arms, then what is estimated only."""

    def fold_runs(arm: str, labels: str, repeat: int, **settings: Any) -> list[Run]:
        again = 500_000 if arm == "A again" else 0
        name = f"{arm}, lambda {settings['weight']:g}" if settings else arm
        return [
            Run(NAME, name, labels, fold, repeat, again + 1000 * repeat + fold, {"arm": arm, **settings})
            for fold in range(FOLDS)
        ]

    queue = [
        Run(NAME, arm, "control", 0, 0, seed, {"arm": arm, "control": True})
        for seed in range(3)
        for arm in ("A", "D")
    ]
    for repeat in range(REPEATS):
        by_arm = [fold_runs(arm, "fer2013", repeat) for arm in ("A", "D", "A again", "B")]
        queue += [run for fold in zip(*by_arm, strict=True) for run in fold]
    for arm in ("A", "D", "B"):
        queue += fold_runs(arm, "ferplus", 0)
    return queue + fold_runs("C", "fer2013", 0) + fold_runs("D", "fer2013", 0, weight=1.0)


def pilots() -> list[Run]:
    """Learning rates on the pilot faces for the arms of the primary contrast, and for the control."""
    grid = [
        Run(NAME, arm, f"rate {rate:g}", fold, 0, fold, {"arm": arm, "rate": rate, "epochs": 2 * EPOCHS})
        for rate in (1e-3, 2e-3, 4e-3)
        for arm in ("A", "D")
        for fold in range(1)
    ]
    control = [Run(NAME, arm, "control", 0, 0, 0, {"arm": arm, "control": True}) for arm in ("A", "D")]
    return control + grid


class Scores(NamedTuple):
    """Class scores (B, K) from the image (``vit``), the batch (``cba``), and both (``bt``)."""

    vit: Tensor
    bt: Tensor
    cba: Tensor


class Encoded(NamedTuple):
    """What the batch transformer takes: query and key (B, K, 49), value (B, K)."""

    query: Tensor
    key: Tensor
    value: Tensor


class Network(nn.Module):
    """Fusion of three levels, token transformer, and an arm's parts; parts that arms share start the same."""

    def __init__(self, arm: Arm, classes: int, seed: int) -> None:
        super().__init__()
        self.arm = arm
        torch.manual_seed(seed)
        names = ("fine", "middle", "coarse")
        self.face = nn.ModuleDict({name: adapter(maps.LEVELS[name][0]) for name in names})
        self.marks = nn.ModuleDict({name: adapter(maps.LEVELS["landmarks"][0]) for name in names})
        self.fusion = nn.ModuleDict(
            {name: LevelFusion(DIM, HEADS, GRID, scale=0.1, mlp_ratio=2) for name in names}
        )
        self.vit = TokenTransformer(
            classes, dim=DIM, depth=DEPTH, heads=HEADS, mlp_ratio=2.0, dropout=DROPOUT
        )
        self.vit.lean = True
        torch.manual_seed(10_000_000 + seed)  # what follows does not depend on how much was drawn above
        self.levels = MultiLevelAttention(classes, dim=DIM, heads=HEADS)
        self.batch = BatchTransformer(classes)

    def encode(self, given: dict[str, Tensor]) -> Encoded:
        """Levels of B faces to class maps and scores."""
        tokens = []
        for name, fuse in self.fusion.items():
            face = self.face[name](given[name])
            if face.shape[-1] != 2 * GRID:
                face = F.interpolate(face, (2 * GRID, 2 * GRID), mode="bilinear", align_corners=False)
            tokens.append(fuse(face, self.marks[name](given["landmarks"])).flatten(1, 2))
        joined = torch.cat(tokens, dim=1)
        if self.arm.levels:
            joined = self.levels.mix(joined)
        value = self.vit(joined)
        if self.arm.batch != "attention":
            return Encoded(value, value, value)
        return Encoded(*self.levels.class_maps(joined), value)

    def attend(self, encoded: Encoded) -> Scores:
        """The three outputs for the images of one batch."""
        value = encoded.value
        if self.arm.batch == "attention":
            cba, bt = self.batch(*encoded)
            return Scores(value, bt, cba)
        return Scores(value, 2 * value, value)

    def loss(self, scores: Scores, labels: Tensor, weight: float) -> Tensor:
        """lambda L_vit + L_bt + L_cba, or L_vit alone for an arm without the batch."""
        own = F.cross_entropy(scores.vit, labels)
        if self.arm.batch == "none":
            return own
        return weight * own + F.cross_entropy(scores.bt, labels) + F.cross_entropy(scores.cba, labels)


def adapter(channels: int) -> nn.Sequential:
    """A level's maps normalized, then brought to ``DIM`` channels."""
    return nn.Sequential(nn.GroupNorm(1, channels, affine=False), nn.Conv2d(channels, DIM, 1))


class Trainer:
    """Trains the runs of this experiment on the faces and maps of a folder."""

    def __init__(self, faces: Faces, groups: np.ndarray, store: Path, pilot: bool = False) -> None:
        self.faces, self.groups, self.store = faces, groups, store
        self.some = without_twins(faces, groups) if pilot else ~faces.pilot
        self.pilot = pilot
        self.maps = np.load(store / "maps.npy", mmap_mode="r")

    def __call__(self, run: Run, checkpoint: Checkpoint) -> Row:
        which = run.condition if run.condition in LABELS else "fer2013"
        labels = self.faces.labels(which)
        rows = np.flatnonzero(self.some & (labels >= 0))
        fold = grouped_folds(self.groups[rows], labels[rows], FOLDS, run.repeat)
        learned, held = rows[fold != run.fold], rows[fold == run.fold]
        net = Network(ARMS[run.settings["arm"]], self.faces.classes(which), run.seed)
        if run.settings.get("control"):
            if self.pilot:  # they are too few to learn from
                learned, held = np.flatnonzero(~self.faces.pilot & (labels >= 0)), rows
            return self.control(net, run, labels, learned, held)
        self.fit(net, run, labels, learned, checkpoint)
        return {"labels": which, "held": len(held), **self.judge(net, labels, learned, held, run.seed)}

    def levels(self, rows: np.ndarray, side: np.ndarray | int = 0) -> dict[str, Tensor]:
        """Maps of faces, or of their mirror images where ``side`` is 1."""
        return maps.split(torch.from_numpy(self.maps[rows, side]).float())

    def fit(
        self, net: Network, run: Run, labels: np.ndarray, learned: np.ndarray, checkpoint: Checkpoint
    ) -> None:
        """Train; every epoch draws from its own generator, so a killed run goes on as if it had not been."""
        epochs, rate = run.settings.get("epochs", EPOCHS), run.settings.get("rate", RATE)
        steps = len(learned) // BATCH
        optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, total_steps=epochs * steps, pct_start=0.1
        )
        states = {"net": net, "optimizer": optimizer, "schedule": schedule}
        for epoch in resumed_epochs(checkpoint, epochs, **states):
            torch.manual_seed(100 * run.seed + epoch)  # dropout
            draw = np.random.default_rng([run.seed, epoch])
            order, side = draw.permutation(learned), draw.integers(0, 2, len(learned))
            net.train()
            for step in range(steps):
                part = slice(step * BATCH, (step + 1) * BATCH)
                scores = net.attend(net.encode(self.levels(order[part], side[part])))
                optimizer.zero_grad()
                loss = net.loss(
                    scores, torch.from_numpy(labels[order[part]]), run.settings.get("weight", LAMBDA)
                )
                loss.backward()
                optimizer.step()
                schedule.step()
        net.eval()

    @torch.no_grad()
    def encoded(self, net: Network, rows: np.ndarray, kept: np.ndarray | None = None) -> Encoded:
        """Held-out faces to what the batch transformer takes; ``kept``: their maps, where they are others."""
        net.eval()
        parts = []
        for some in np.array_split(np.arange(len(rows)), -(-len(rows) // 256)):
            given = (
                self.levels(rows[some]) if kept is None else maps.split(torch.from_numpy(kept[some]).float())
            )
            parts.append(net.encode(given))
        return Encoded(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def judge(
        self, net: Network, labels: np.ndarray, learned: np.ndarray, held: np.ndarray, seed: int
    ) -> Row:
        """All outputs on held-out faces, as they are and corrupted."""
        truth, encoded = torch.from_numpy(labels[held]), self.encoded(net, held)
        found = {"outputs": outputs(net, encoded, truth, seed)}
        if net.arm.batch == "attention":
            found["outputs"] |= one_class(net, encoded, truth, seed)
            found["outputs"] |= self.reference(net, encoded, truth, learned, seed)
        places = corrupted_rows(self.faces)
        inside = np.isin(places, held)
        for kind in CORRUPTIONS if inside.any() else ():
            kept = np.load(self.store / f"corrupted-{kind}.npy", mmap_mode="r")
            some = places[inside]
            corrupted = self.encoded(net, some, kept[np.flatnonzero(inside), 0])
            truth = torch.from_numpy(labels[some])
            labeled = truth >= 0
            corrupted = Encoded(*(part[labeled] for part in corrupted))
            found[kind] = outputs(net, corrupted, truth[labeled], seed)
        return found

    @torch.no_grad()
    def reference(self, net: Network, encoded: Encoded, truth: Tensor, learned: np.ndarray, seed: int) -> Row:
        """Each face attends to itself and to ``REFERENCE`` training faces, the same for all."""
        known = self.encoded(net, np.random.default_rng(seed).choice(learned, REFERENCE, replace=False))
        net.batch.set_reference(known.key, known.value)
        scores = net.attend(encoded)
        net.batch.set_reference(None, None)
        return {f"{name}, reference": measure(getattr(scores, name), truth) for name in ("bt", "cba")}

    def control(
        self, net: Network, run: Run, labels: np.ndarray, learned: np.ndarray, held: np.ndarray
    ) -> Row:
        """What averaging can do: a batch holds 8 faces, each in 8 frames that are corrupted independently.

        A frame loses most places of its maps and gets noise; a mark that says nothing of the expression, but
        is the same in all frames of a face, tells which frames belong together. Here the other images of the
        batch do know more about a face than its own frame, and batch attention must find them. Before that,
        both arms learn from batches of 64 different faces, so that a frame's own scores are worth averaging.
        """
        steps = sum(CONTROL_STEPS)
        optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
        draw = np.random.default_rng(run.seed)
        torch.manual_seed(run.seed)
        net.train()
        for step in range(steps):
            frames = 1 if step < CONTROL_STEPS[0] else FRAMES
            rows = np.repeat(draw.choice(learned, BATCH // frames, replace=False), frames)
            scores = net.attend(net.encode(corrupt(self.levels(rows), frames)))
            optimizer.zero_grad()
            net.loss(scores, torch.from_numpy(labels[rows]), LAMBDA).backward()
            optimizer.step()
            schedule.step()
        net.eval()
        held = np.random.default_rng(0).permutation(held)[: min(len(held), 1000) // FRAMES * FRAMES]
        torch.manual_seed(0)
        found: dict[str, list[Tensor]] = {}
        for faces in held.reshape(-1, BATCH // FRAMES):
            rows = np.repeat(faces, FRAMES)
            with torch.no_grad():
                scores = net.attend(net.encode(corrupt(self.levels(rows), FRAMES)))
            for name, logits in scores._asdict().items():
                found.setdefault(name, []).append(logits)
        truth = torch.from_numpy(np.repeat(labels[held], FRAMES))
        measured = {name: measure(torch.cat(logits), truth) for name, logits in found.items()}
        return {"labels": "fer2013", "held": len(held), "outputs": measured}


def corrupt(levels: dict[str, Tensor], frames: int) -> dict[str, Tensor]:
    """Frames that lose the same places on all levels (of a 7x7 grid) and get noise, each for itself.

    ``frames`` that follow each other are of one face and get one mark, the same on all channels.
    """
    count = len(levels["coarse"])
    kept = (torch.rand(count, 1, GRID, GRID) < CONTROL_KEEP).float()
    mark = CONTROL_MARK * torch.randn(count // frames, 1, GRID, GRID).repeat_interleave(frames, 0)

    def at(grid: Tensor, level: Tensor) -> Tensor:
        return F.interpolate(grid, level.shape[-2:], mode="nearest")

    return {
        name: (level + CONTROL_NOISE * torch.randn_like(level)) * at(kept, level) + at(mark, level)
        for name, level in levels.items()
    }


@torch.no_grad()
def outputs(net: Network, encoded: Encoded, truth: Tensor, seed: int) -> Row:
    """``vit`` as it is; ``bt`` and ``cba`` in ``SHUFFLES`` random orders cut into batches.

    Their ``right`` is how often a face was right; the other metrics are of the first order.
    """
    found = {"vit": measure(encoded.value, truth)}
    if net.arm.batch != "attention":
        return found
    draw = torch.Generator().manual_seed(seed)
    right = {"bt": torch.zeros(len(truth)), "cba": torch.zeros(len(truth))}
    for shuffle in range(SHUFFLES):
        scores = in_batches(net, encoded, torch.randperm(len(truth), generator=draw).split(BATCH))
        for name, times in right.items():
            logits = getattr(scores, name)
            times += logits.argmax(1) == truth
            if shuffle == 0:
                found[name] = measure(logits, truth)
    for name, times in right.items():
        found[name]["right"] = pack(times.numpy(), SHUFFLES)
        found[name]["metrics"]["accuracy"] = round(float(times.mean()) / SHUFFLES, 6)
    return found


def in_batches(net: Network, encoded: Encoded, batches: Any) -> Scores:
    """Outputs in the order of the faces, computed in the given batches."""
    parts = [net.attend(Encoded(*(part[rows] for part in encoded))) for rows in batches]
    order = torch.cat(list(batches)).argsort()
    return Scores(*(torch.cat(part)[order] for part in zip(*parts, strict=True)))


@torch.no_grad()
def one_class(net: Network, encoded: Encoded, truth: Tensor, seed: int) -> Row:
    """Batches that hold one class each: what their composition gives away."""
    draw = torch.Generator().manual_seed(seed)
    batches = []
    for label in truth.unique():
        mine = torch.nonzero(truth == label)[:, 0]
        batches += mine[torch.randperm(len(mine), generator=draw)].split(BATCH)
    scores = in_batches(net, encoded, batches)
    return {f"{name}, one class": measure(getattr(scores, name), truth) for name in ("bt", "cba")}


def corrupted_rows(faces: Faces) -> np.ndarray:
    """The training faces that are also kept in corrupted versions, by index."""
    some = np.flatnonzero(~faces.pilot & (faces.fer2013 >= 0))
    return np.sort(np.random.default_rng(CORRUPTED_SEED).choice(some, CORRUPTED, replace=False))


def make_corrupted(faces: Faces, weights: Path, store: Path) -> None:
    """Keep the maps of corrupted faces, one file for each kind."""
    rows = torch.from_numpy(corrupted_rows(faces))
    images = torch.from_numpy(faces.images)[rows][:, None]
    extract, reductions = maps.Extractor(weights), maps.reductions(store)
    for kind, severity in CORRUPTIONS.items():
        changed = corrupt_images(images, kind, severity, rows, seed=0)[:, 0]
        maps.keep(extract, reductions, changed, store / f"corrupted-{kind}.npy", mirror=False)
