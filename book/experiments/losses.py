"""Experiment 3: does F-PDLS help? Seven losses on frozen maps (a), three with the small network (b).

(a) The maps of a face, projected to ``WIDTH`` numbers, and a network of one hidden layer. (b) PocketNet on
pictures. Both learn from four of five grouped folds of the training folder's FER+ faces.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from book.experiments.faces import ArrayFaces, Faces, grouped_folds, without_twins
from book.experiments.harness import Checkpoint, Row, Run
from book.experiments.measures import measure
from ferlib.data import confusion_prior
from ferlib.data.transforms import model_input
from ferlib.losses import FERPLUS_PRIOR, FocalPDLSLoss, LabelSmoothingLoss, PDLSLoss
from ferlib.models import PocketNet
from ferlib.training import fit as fit_recipe
from ferlib.training import load_recipe

NAME = "losses"
WIDTH, HIDDEN, EPOCHS, BATCH, WEIGHT_DECAY, DROPOUT = 2048, 256, 12, 128, 0.05, 0.4
LOSSES = ("cross-entropy", "label smoothing", "focal", "PDLS", "F-PDLS", "votes")
NOISES = ("clean", "uniform", "prior")
SHARE = 0.2  # of the labels that are wrong
FOLDS, REPEATS = 5, 4
CONTROL_FACES, CONTROL_EPOCHS, CONTROL_RATE, CONTROL_VOTES = 400, 300, 1e-3, 10
RATES = dict.fromkeys(LOSSES, 3e-4)  # the best of the pilot grid for every loss
POCKET_LOSSES, POCKET_EPOCHS = ("cross-entropy", "F-PDLS", "votes"), 8


def criterion(name: str, prior: Tensor) -> nn.Module:
    """A loss with the released code's constants; "votes" is cross-entropy with vote shares as target."""
    return {
        "cross-entropy": lambda: nn.CrossEntropyLoss(),
        "votes": lambda: nn.CrossEntropyLoss(),
        "label smoothing": lambda: LabelSmoothingLoss(alpha=0.9),
        "focal": lambda: FocalPDLSLoss(alpha=1.0, gamma=2.0, prior=prior),
        "PDLS": lambda: PDLSLoss(alpha=0.5, prior=prior),
        "F-PDLS": lambda: FocalPDLSLoss(alpha=0.8, gamma=2.0, prior=prior),
    }[name]()


def runs() -> list[Run]:
    """The queue: each repeat of (a) is whole before the next begins; (b) comes between."""
    mlp = [
        Run(NAME, loss, noise, fold, repeat, seed=1000 * repeat + fold)
        for repeat in range(REPEATS)
        for fold in range(FOLDS)
        for noise in NOISES
        for loss in LOSSES
    ]
    pocket = [
        Run(NAME, loss, "pocket", fold, 0, seed=fold) for fold in range(FOLDS) for loss in POCKET_LOSSES
    ]
    control = [
        Run(NAME, loss, "control", 0, repeat, seed=repeat)
        for repeat in range(10)
        for loss in ("cross-entropy", "PDLS")
    ]
    twice = [
        Run(NAME, "cross-entropy again", "clean", fold, repeat, seed=500_000 + 1000 * repeat + fold)
        for repeat in range(REPEATS)
        for fold in range(FOLDS)
    ]
    return [*control, *twice, *mlp, *pocket]


def pilots() -> list[Run]:
    """The grid of learning rates on the pilot faces, three folds each."""
    return [
        Run(NAME, loss, f"rate {rate:g}", fold, 0, fold, {"rate": rate, "epochs": 3 * EPOCHS})
        for rate in (1e-4, 3e-4, 1e-3, 3e-3)
        for loss in LOSSES
        for fold in range(3)
    ]


def mislabeled(labels: np.ndarray, shares: np.ndarray, noise: str, prior: np.ndarray, seed: int) -> tuple:
    """Labels and vote shares with a share of wrong ones, drawn uniformly or from the prior.

    The shares of the true and the wrong class change places, so that they are as sure as before of the wrong
    class.
    """
    if noise == "clean":
        return labels, shares
    draw, classes = np.random.default_rng(seed), shares.shape[1]
    broken = np.flatnonzero(draw.random(len(labels)) < SHARE)
    odds = np.full((classes, classes), 1.0) if noise == "uniform" else prior.astype(float)
    odds = odds * (1 - np.eye(classes))
    odds /= odds.sum(1, keepdims=True)
    labels, shares = labels.copy(), shares.copy()
    for i in broken:
        true, wrong = labels[i], draw.choice(classes, p=odds[labels[i]])
        labels[i], shares[i, [true, wrong]] = wrong, shares[i, [wrong, true]]
    return labels, shares


def network(seed: int, classes: int = 8) -> nn.Sequential:
    """One hidden layer on projected maps (B, WIDTH)."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Dropout(DROPOUT),
        nn.Linear(WIDTH, HIDDEN),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(HIDDEN, classes),
    )


def fit(
    net: nn.Module, loss: nn.Module, inputs: np.ndarray, targets: Tensor, rate: float, epochs: int, seed: int
):
    """Train on faces (N, 2, WIDTH), each time the face or its mirror image; targets are labels or shares."""
    draw = torch.Generator().manual_seed(seed)
    steps = -(-len(inputs) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(inputs), generator=draw)
        side = torch.randint(0, 2, (len(inputs),), generator=draw)
        for rows in order.split(BATCH):
            given = torch.from_numpy(inputs[rows.numpy(), side[rows].numpy()]).float()
            optimizer.zero_grad()
            loss(net(given), targets[rows]).backward()
            optimizer.step()
            schedule.step()
    net.eval()


@torch.no_grad()
def predict(net: nn.Module, inputs: np.ndarray) -> Tensor:
    """Logits of faces (N, 2, WIDTH) as they are, not mirrored."""
    return torch.cat([net(torch.from_numpy(part[:, 0]).float()) for part in np.array_split(inputs, 20)])


class Trainer:
    """Trains the runs of this experiment on the faces and maps of a folder."""

    def __init__(self, faces: Faces, groups: np.ndarray, store: Path, pilot: bool = False) -> None:
        chosen = (faces.ferplus >= 0) & (faces.pilot == pilot)
        if pilot:
            chosen &= without_twins(faces, groups)
        self.rows = np.flatnonzero(chosen)
        self.faces, self.groups, self.store, self.pilot = faces, groups, store, pilot
        self.labels, self.shares = faces.ferplus[self.rows], faces.shares()[self.rows]
        self.inputs = np.load(store / "projected.npy", mmap_mode="r")

    def __call__(self, run: Run, checkpoint: Checkpoint) -> Row:
        if run.condition == "control":
            return self.control(run)
        held = grouped_folds(self.groups[self.rows], self.labels, FOLDS, run.repeat) == run.fold
        if run.condition == "pocket":
            return self.pocket(run, checkpoint, held)
        votes = torch.from_numpy(self.faces.votes[self.rows][~held])
        prior = confusion_prior(votes)
        noise = run.condition if run.condition in NOISES else "clean"
        labels, shares = mislabeled(
            self.labels[~held], self.shares[~held], noise, prior.numpy(), run.seed % 500_000
        )
        loss = run.arm.removesuffix(" again")
        targets = torch.from_numpy(shares if loss == "votes" else labels)
        net = network(run.seed)
        rate = run.settings.get("rate", RATES[loss])
        epochs = run.settings.get("epochs", EPOCHS)
        fit(net, criterion(loss, prior), self.inputs[self.rows[~held]], targets, rate, epochs, run.seed)
        return self.row(predict(net, self.inputs[self.rows[held]]), held)

    def row(self, logits: Tensor, held: np.ndarray) -> Row:
        """What a row says of the held-out faces."""
        labels, shares = (torch.from_numpy(part[held]) for part in (self.labels, self.shares))
        return {"labels": "ferplus", "held": int(held.sum()), **measure(logits, labels, shares)}

    def control(self, run: Run) -> Row:
        """Few faces whose labels and votes are drawn from the prior: the case that PDLS assumes.

        Every face's label is replaced by one drawn from its row of the published prior, and so are ten votes
        of the faces that are held out. A loss that knows the prior must have the lower negative
        log-likelihood.
        """
        draw = np.random.default_rng(run.seed)
        odds = FERPLUS_PRIOR.double().numpy()
        odds /= odds.sum(1, keepdims=True)
        order = draw.permutation(len(self.rows))
        few, rest = order[:CONTROL_FACES], order[CONTROL_FACES:]
        labels = np.array([draw.choice(len(odds), p=odds[label]) for label in self.labels[few]])
        shares = np.stack([draw.multinomial(CONTROL_VOTES, odds[label]) for label in self.labels[rest]])
        net = network(run.seed)
        given, targets = self.inputs[self.rows[few]], torch.from_numpy(labels)
        loss = criterion(run.arm, FERPLUS_PRIOR)
        fit(net, loss, given, targets, CONTROL_RATE, CONTROL_EPOCHS, run.seed)
        logits = predict(net, self.inputs[self.rows[rest]])
        found = measure(logits, torch.from_numpy(self.labels[rest]), torch.from_numpy(shares / CONTROL_VOTES))
        return {"labels": "ferplus", "held": len(rest), **found}

    def pocket(self, run: Run, checkpoint: Checkpoint, held: np.ndarray) -> Row:
        """PocketNet from scratch; the last epoch counts, and the pilot faces that watch it choose nothing."""
        prior = confusion_prior(torch.from_numpy(self.faces.votes[self.rows][~held]))
        targets = "votes" if run.arm == "votes" else "label"
        recipe = load_recipe("pocket-ferplus").replace(
            name=str(run), epochs=run.settings.get("epochs", POCKET_EPOCHS), seed=run.seed, targets=targets
        )
        train = ArrayFaces.of(self.faces, self.rows[~held])
        watched = without_twins(self.faces, self.groups) & (self.faces.ferplus >= 0)
        watch = ArrayFaces.of(self.faces, np.flatnonzero(watched)[:256])
        torch.manual_seed(run.seed)
        model, folder = PocketNet(**recipe.model_options), checkpoint.path.with_suffix("")
        resume = (folder / "last.safetensors").is_file()
        fit_recipe(
            model,
            criterion(run.arm, prior),
            train,
            watch,
            recipe,
            run_dir=folder,
            resume=resume,
            progress=None,
        )
        model.eval()
        with torch.no_grad():
            parts = torch.from_numpy(self.faces.images[self.rows[held]])[:, None].split(256)
            logits = torch.cat([model(model_input(part, recipe.image_size)).float() for part in parts])
        return self.row(logits, held)
