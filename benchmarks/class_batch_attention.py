"""Class batch attention, forward and backward: time and peak memory against the published formulation.

The published formulation (README of the Batch Transformer Network) writes the (C, B, B) attention down and
lets autograd keep it. ferlib writes it down for small batches and calls fused attention for large ones.

Each formulation runs in a process of its own, so that the peak is its own: the highest resident set during
its steps, over the resident set just before the first (inputs and library are in both; on Linux the
high-water mark is reset in between, elsewhere it counts from the start of the process). The processes take
turns, one step at a time, so that a busy machine is busy for both; reported is the median step. Asserts that
values and gradients agree, and no time::

    python benchmarks/class_batch_attention.py [--batch 64 4096] [--classes 8] [--threads 2]
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import resource
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from ferlib.models import class_batch_attention


def published(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The steps of the BTN README, one after the other: (B, C, E), (B, C, E), (B, C) -> (B, C)."""
    query = query.contiguous().transpose(0, 1).unsqueeze(0)  # (1, C, B, E)
    key = key.contiguous().transpose(0, 1).unsqueeze(0)
    value = value.unsqueeze(1).contiguous().transpose(0, -1).contiguous().transpose(-2, -1)  # (C, B, 1)
    _, classes, batch, _ = query.shape
    scaled = query / math.sqrt(classes)
    weights = torch.softmax(scaled @ key.transpose(-2, -1), dim=-1)
    weights = weights.contiguous().view(classes, batch, batch)
    mixed = torch.bmm(weights, value).contiguous().view(classes, batch)
    return mixed.transpose(-1, -2)


FORMULATIONS = {"published": published, "ferlib": class_batch_attention}


def make_inputs(batch: int, classes: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = (batch, classes, 49), (batch, classes, 49), (batch, classes)
    return [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]


def one_step(function, inputs: list[Tensor]) -> list[Tensor]:
    out = function(*inputs)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]


def peak() -> float:
    """Highest resident set so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent process too, whose copy this one was before exec
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # bytes on macOS


def reset_peak() -> float:
    """Let the high-water mark start again from what is resident now; return it, MiB."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def work(pipe, name: str, batch: int, classes: int, threads: int) -> None:
    """A process: at each message do one step and answer (seconds, peak MiB since the start)."""
    torch.set_num_threads(threads)
    inputs, function = make_inputs(batch, classes), FORMULATIONS[name]
    one_step(function, make_inputs(2, classes))  # libraries loaded, threads started
    before = reset_peak()
    while pipe.recv():
        start = time.perf_counter()
        one_step(function, inputs)
        seconds = time.perf_counter() - start
        pipe.send((seconds, peak() - before))


def compare(batch: int, classes: int, threads: int, rounds: int) -> None:
    spawn = multiprocessing.get_context("spawn")  # a forked child would inherit its parent's high-water mark
    pipes, processes, peaks = {}, [], {}
    for name in FORMULATIONS:
        pipes[name], theirs = spawn.Pipe()
        processes.append(spawn.Process(target=work, args=(theirs, name, batch, classes, threads)))
        processes[-1].start()
    seconds: dict[str, list[float]] = {name: [] for name in FORMULATIONS}
    for _ in range(rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            time_taken, peaks[name] = pipe.recv()
            seconds[name].append(time_taken)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}  # the first warms up
    print(f"\nbatch {batch}, {classes} classes, {threads} threads, median of {rounds - 1} steps")
    for name in FORMULATIONS:
        print(f"  {name:10s} {1e3 * medians[name]:9.2f} ms   peak {peaks[name]:8.1f} MiB")
    print(f"  ferlib is {medians['published'] / medians['ferlib']:.2f} times as fast", end="")
    print(f", with {peaks['ferlib'] / peaks['published']:.3f} of the peak memory")


def check(batch: int, classes: int) -> None:
    inputs = make_inputs(batch, classes)
    for ours, theirs in zip(*[one_step(f, inputs) for f in FORMULATIONS.values()], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 4096])
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=0, help="default: 201 for small batches, 6 for large")
    options = parser.parse_args()
    for batch in options.batch:
        check(min(batch, 1024), options.classes)
        compare(batch, options.classes, options.threads, options.rounds or (201 if batch <= 512 else 6))


if __name__ == "__main__":
    main()
