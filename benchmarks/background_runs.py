"""What a run of the experiments in the background costs a chapter that trains in the foreground.

The foreground trains the small Batch Transformer Network with two threads, as a chapter does. Beside it a
network learns without end, (a) with torch's defaults, (b) as ``book.experiments`` runs: one thread, at a low
priority. The three situations take turns. Prints seconds of a step and their ratios to the foreground alone::

    python benchmarks/background_runs.py [--rounds 5] [--steps 4]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch
from tqdm.auto import trange

from ferlib.models import btn_small

WORK = """
import torch
from torch import nn
{settings}
net = nn.Sequential(nn.Linear(2048, 256), nn.ReLU(), nn.Linear(256, 8))
optimizer = torch.optim.AdamW(net.parameters())
while True:
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(torch.randn(128, 2048)), torch.randint(8, (128,))).backward()
    optimizer.step()
"""
BESIDE = {
    "alone": None,
    "beside a run with torch's defaults": "",
    "beside a run of the experiments": "import os; os.nice(10); torch.set_num_threads(1)",
}


def foreground(net: torch.nn.Module, images: torch.Tensor, steps: int) -> float:
    """Seconds of a step of training."""
    start = time.perf_counter()
    for _ in range(steps):
        sum(output.square().mean() for output in net(images)).backward()
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(2)
    net, images = btn_small().train(), torch.randn(32, 3, 48, 48)
    foreground(net, images, given.steps)  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in BESIDE}
    for _ in trange(given.rounds, desc="rounds"):
        for name, settings in BESIDE.items():
            beside = settings is not None and subprocess.Popen(
                [sys.executable, "-c", WORK.format(settings=settings)]
            )
            if beside:
                time.sleep(4)  # it imports torch
            seconds[name].append(foreground(net, images, given.steps))
            if beside:
                beside.kill()
                beside.wait()
    alone = statistics.median(seconds["alone"])
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"{name:36s} {1000 * median:7.0f} ms a step   {median / alone:5.2f} x")


if __name__ == "__main__":
    main()
