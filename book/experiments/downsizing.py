"""Experiment 2: does a learned downsizer recover detail for a small vision transformer?

Faces of 48 pixels go to a vision transformer that reads 28. It is pretrained behind the antialiased rule,
then fine-tuned on other faces behind each front.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from book.experiments.faces import Faces, grouped_folds, without_twins
from book.experiments.harness import Checkpoint, Row, Run, resumed_epochs
from book.experiments.measures import measure
from ferlib.data.transforms import Augment, model_input, normalize, to_float, to_rgb
from ferlib.models import FixedResizer, NeuralResizer

NAME = "downsizing"
LARGE, SMALL = 48, 28
BATCH, WEIGHT_DECAY = 64, 0.05
PRETRAINING_EPOCHS, PRETRAINING_RATE = 20, 1e-3
EPOCHS, RATE = 4, 5e-4
PRETRAININGS, SEEDS = 3, 3
FRONTS = (
    "antialiased",
    "antialiased again",
    "learned",
    "learned, starts bilinear",
    "layers after antialiased",
)
CONTROL_FACES, CONTROL_EPOCHS, CONTROL_SEEDS, WAVES, AMPLITUDE = 3000, 6, 3, (15, 24), 0.12


def runs() -> list[Run]:
    """The queue: the control, then each pretraining with its fine-tunings."""
    control = [
        Run(NAME, front, "control", 0, 0, seed)
        for seed in range(CONTROL_SEEDS)
        for front in ("antialiased", "learned", "learned, starts bilinear")
    ]
    queue = list(control)
    for pretraining in range(PRETRAININGS):
        queue.append(Run(NAME, "pretraining", "ferplus", 0, pretraining, 77 + pretraining))
        for seed in range(SEEDS):
            for front in FRONTS:
                own = 100 * pretraining + seed + (500_000 if front == "antialiased again" else 0)
                queue.append(Run(NAME, front, "ferplus", seed, pretraining, own))
    return queue


def pilots() -> list[Run]:
    """Learning rates, judged on the pilot faces: first of pretraining, then of fine-tuning behind its best.

    The pilot faces alone are too few to train a transformer, so it learns from the shares of the training
    folder that pretrain and fine-tune; those that are judged later are not looked at.
    """
    first = [
        Run(NAME, "pretraining", f"rate {rate:g}", 0, number, 77, {"rate": rate})
        for number, rate in enumerate((1e-3, 2e-3))
    ]
    grid = [
        Run(NAME, front, f"rate {rate:g}", 0, 0, 0, {"rate": rate})
        for rate in (2e-4, 5e-4, 1e-3)
        for front in ("antialiased", "learned")
    ]
    return [*first, *grid]


class LayersAfter(nn.Module):
    """The layers of the learned resizer behind the antialiased rule: as many, but they see 28 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.rule = FixedResizer(SMALL, "antialiased")
        self.layers = NeuralResizer(SMALL, SMALL, 16)

    def residual(self, images: Tensor) -> Tensor:
        return self.layers.residual(self.rule(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(self.rule(images))


def front(name: str) -> nn.Module:
    """What stands before the transformer: (B, 3, 48, 48) -> (B, 3, 28, 28)."""
    made: dict[str, Callable[[], nn.Module]] = {
        "antialiased": lambda: FixedResizer(SMALL, "antialiased"),
        "learned": lambda: NeuralResizer(LARGE, SMALL, 16),
        "learned, starts bilinear": lambda: NeuralResizer(LARGE, SMALL, 16, start_bilinear=True),
        "layers after antialiased": LayersAfter,
    }
    return made[name.removesuffix(" again")]()


def transformer(classes: int = 8) -> nn.Module:
    """A vision transformer of 49 patches of 4 pixels."""
    shape = {"embed_dim": 96, "depth": 4, "num_heads": 3, "mlp_ratio": 3.0}
    return VisionTransformer(SMALL, patch_size=4, num_classes=classes, drop_path_rate=0.05, **shape)


def fit(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    rate: float,
    epochs: int,
    seed: int,
    checkpoint: Checkpoint,
    augment: Augment | None = None,
) -> None:
    """Train on gray faces uint8 (N, 1, 48, 48); a killed run goes on from its last epoch."""
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps, pct_start=0.1)
    for epoch in resumed_epochs(checkpoint, epochs, net=net, optimizer=optimizer, schedule=schedule):
        torch.manual_seed(100 * seed + epoch)
        draw = torch.Generator().manual_seed(100 * seed + epoch)
        net.train()
        for rows in torch.randperm(len(images), generator=draw)[: steps * BATCH].split(BATCH):
            faces = to_float(images[rows])
            faces = normalize(to_rgb(augment(faces, draw) if augment else faces))
            optimizer.zero_grad()
            F.cross_entropy(net(faces), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    net.eval()


@torch.no_grad()
def predict(net: nn.Module, images: Tensor) -> Tensor:
    """Logits of gray faces (N, 1, 48, 48)."""
    net.eval()
    return torch.cat([net(model_input(part)) for part in images.split(256)])


@torch.no_grad()
def residual_size(net: nn.Module, images: Tensor) -> float | None:
    """How large what a learned front adds is, against the picture: ratio of standard deviations."""
    if not hasattr(net[0], "residual"):
        return None
    given = model_input(images)
    return round(float(net[0].residual(given).std() / given.std()), 4)


class Trainer:
    """Trains the runs of this experiment; the pretrained transformers lie in the folder of the faces."""

    def __init__(self, faces: Faces, groups: np.ndarray, store: Path, pilot: bool = False) -> None:
        some = ~faces.pilot | (without_twins(faces, groups) if pilot else False)
        self.rows = np.flatnonzero(some & (faces.ferplus >= 0))
        self.images = torch.from_numpy(faces.images[self.rows])[:, None]
        self.labels = torch.from_numpy(faces.ferplus[self.rows])
        self.shares = torch.from_numpy(faces.shares()[self.rows])
        # of 50 parts, 19 pretrain, 19 fine-tune and 12 are judged: 9,500, 9,500 and 6,000 faces
        counts = ~faces.pilot[self.rows]
        part = np.full(len(self.rows), -1)  # of a pilot face
        learned = self.rows[counts]
        part[counts] = grouped_folds(groups[learned], faces.ferplus[learned], 50, seed=0)
        part = torch.from_numpy(part)
        self.pretrain, self.finetune = (part >= 0) & (part < 19), (part >= 19) & (part < 38)
        self.judge = part < 0 if pilot else part >= 38
        self.store, self.kind = store, "pilot-transformer" if pilot else "transformer"

    def __call__(self, run: Run, checkpoint: Checkpoint) -> Row:
        if run.condition == "control":
            return self.control(run, checkpoint)
        backbone = self.store / f"{self.kind}-{run.repeat}.pt"
        augment = Augment(flip=0.5, rotation=10, zoom=(0.9, 1.1), shift=0.06, brightness=0.2, contrast=0.2)
        torch.manual_seed(run.seed)
        net = nn.Sequential(front("antialiased" if run.arm == "pretraining" else run.arm), transformer())
        if run.arm == "pretraining":
            some, rate, epochs = self.pretrain, PRETRAINING_RATE, PRETRAINING_EPOCHS
        else:
            net[1].load_state_dict(torch.load(backbone, weights_only=True))
            some, rate, epochs = self.finetune, RATE, EPOCHS
        fit(
            net,
            self.images[some],
            self.labels[some],
            rate=run.settings.get("rate", rate),
            epochs=run.settings.get("epochs", epochs),
            seed=run.seed,
            checkpoint=checkpoint,
            augment=augment,
        )
        if run.arm == "pretraining":
            Checkpoint(backbone).save(net[1].state_dict())
        held = self.images[self.judge]
        found = measure(predict(net, held), self.labels[self.judge], self.shares[self.judge])
        size = residual_size(net, held[:512])
        return {"labels": "ferplus", "held": len(held), "residual": size, **found}

    def control(self, run: Run, checkpoint: Checkpoint) -> Row:
        """Synthetic faces whose label is the direction and band of a wave that 28 pixels cannot hold.

        Plain bilinear interpolation folds such waves into lower ones, so the demand is a win over the
        antialiased rule, which removes them.
        """
        images, labels = waves(CONTROL_FACES + 1000, run.seed)
        torch.manual_seed(run.seed)
        net = nn.Sequential(front(run.arm), transformer(4))
        rest = images[CONTROL_FACES:]
        fit(
            net,
            images[:CONTROL_FACES],
            labels[:CONTROL_FACES],
            rate=PRETRAINING_RATE,
            epochs=CONTROL_EPOCHS,
            seed=run.seed,
            checkpoint=checkpoint,
        )
        found, size = measure(predict(net, rest), labels[CONTROL_FACES:]), residual_size(net, rest)
        return {"labels": "waves", "held": 1000, "residual": size, **found}


def waves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Synthetic faces uint8 (N, 1, 48, 48) with a faint wave, across or down, of 15-19 or 20-24 periods."""
    from ferlib.data import SyntheticFaces

    faces = SyntheticFaces(count, size=LARGE, seed=1000 + seed, channels=1, framing="ferplus")
    images = to_float(torch.cat([faces.batch(part)["image"] for part in torch.arange(count).split(256)]))
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=draw)
    low = WAVES[0] + 5 * (labels // 2)
    periods = low + 4 * torch.rand(count, generator=draw)
    phase = 2 * torch.pi * torch.rand(count, generator=draw)
    along = torch.arange(LARGE) / LARGE
    wave = torch.sin(2 * torch.pi * periods[:, None] * along + phase[:, None])
    across, down = wave[:, None, None, :], wave[:, None, :, None]
    pattern = torch.where((labels % 2 == 0)[:, None, None, None], across, down)
    return (255 * (images + AMPLITUDE * pattern).clamp(0, 1)).round().to(torch.uint8), labels
