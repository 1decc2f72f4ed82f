"""A run that is killed again and again: what ``test_resume`` starts as a process of its own.

    python -m tests.killed FOLDER SEED KILLS

One process imports everything once and then computes nothing; each attempt at the run is a child of it, which
ends by SIGKILL: at a random step, at a random moment, or at the n-th file that is moved to its place. Prints
how each attempt ended, one a line.
"""

import os
import random
import signal
import sys
import threading
from pathlib import Path

import torch
from torch import nn

from ferlib.data import SyntheticFaces
from ferlib.data.faces import KeptFaces
from ferlib.training import Recipe, fit
from ferlib.training.progress import Progress
from ferlib.weights import checkpoints
from tests.tiny import Net

RECIPE = Recipe(
    name="killed", loss="cross-entropy", epochs=6, batch_size=8, accumulate=2, lr=1e-2, warmup=0.5
)
RECIPE = RECIPE.replace(sam_rho=0.05, ema=0.9, clip=1.0, augment="light", balance=True, image_size=16)


def faces() -> tuple[KeptFaces, KeptFaces]:
    """Drawn faces, few and kept: 72 to learn from (5 steps an epoch), 24 to judge by."""
    return tuple(KeptFaces(SyntheticFaces(count, size=48, seed=seed)) for count, seed in ((72, 1), (24, 2)))


class Killer(Progress):
    """Kills its own process after a step that was chosen before."""

    def __init__(self, after: int | None) -> None:
        self.left = after

    def step(self, epoch: int, step: int, loss: float) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def die_at_move(count: int) -> None:
    """Die just before the n-th file from now on is moved to its place."""
    left = [count]

    def hook(event: str, _: tuple) -> None:
        if event == "os.rename":
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def attempt(folder: Path, data: tuple, way: str, number: float, save_minutes: float) -> None:
    """One child's life: go on where the last one died."""
    if way == "move":
        die_at_move(int(number))
    if way == "moment":
        threading.Timer(number, os.kill, (os.getpid(), signal.SIGKILL)).start()
    resume = (folder / "last.state.safetensors").exists()
    torch.manual_seed(99 if resume else 0)  # other weights: everything must come from the file
    model = Net(8)
    torch.rand(7)
    recipe, progress = (
        RECIPE.replace(save_minutes=save_minutes),
        Killer(int(number) if way == "step" else None),
    )
    options = {"run_dir": folder, "resume": resume, "device": "cpu", "progress": progress}
    fit(model, nn.CrossEntropyLoss(), *data, recipe, **options)
    checkpoints.save(folder / "end.safetensors", model)


def child(*given: object) -> str:
    """How an attempt ended, in a process of its own."""
    process = os.fork()
    if process == 0:
        try:
            attempt(*given)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    return "done" if os.WEXITSTATUS(status) == 0 else "failed"


def main(root: Path, seed: int, kills: int) -> None:
    """One run that nobody disturbs; then runs that are killed, ``kills`` times in all, and end at last."""
    draw, data = random.Random(seed), faces()
    for one in data:
        one.batch(range(len(one)))  # drawn once, before the first child
    print(child(root / "whole", data, "none", 0, 10.0), flush=True)
    ways = [("step", "move", "moment")[n % 3] for n in range(kills)]
    draw.shuffle(ways)
    number = 1
    while True:
        way = ways[-1] if ways else "none"
        size = {"step": draw.randint(1, 6), "move": draw.randint(1, 12), "moment": draw.uniform(0.01, 0.3)}
        ended = child(root / f"killed{number}", data, way, size.get(way, 0), draw.choice([0, 0.0005, 10]))
        print(f"killed{number}: {ended} ({way} {size.get(way, 0):g})", flush=True)
        if ended == "failed" or (ended == "done" and not ways):
            break
        if ended == "killed":
            ways.pop()
        number += ended == "done"  # it got away: the rest of the kills are for the next run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
