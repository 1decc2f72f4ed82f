"""Several formulations measured in turn, each in a process of its own.

A process of its own, so that the peak of memory is its own; in turn, one step at a time, so that a busy
machine is busy for all. The first step of each warms up and is not counted.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

Step = Callable[[], object]


@dataclass
class Cost:
    """Seconds of each step; MiB that the steps added to the process at most; MiB of the whole process."""

    seconds: list[float]
    added: float
    whole: float

    @property
    def median(self) -> float:
        """Seconds of a usual step."""
        return statistics.median(self.seconds)


def take_turns(
    make: Callable[[str], Step],
    names: Sequence[str],
    rounds: int,
    *,
    threads: int,
    warm_up: Callable[[], object] | None = None,
) -> dict[str, Cost]:
    """Measure ``rounds`` steps of each formulation.

    ``make(name)`` is called in the new process and gives the step to repeat; ``warm_up`` before it loads
    libraries and starts threads, so that they do not count as the step's memory. Both must be picklable
    (functions of a module, ``functools.partial`` of them). On Linux the high-water mark of memory is reset
    before the first step, elsewhere it counts from the start of the process.
    """
    spawn = multiprocessing.get_context("spawn")  # a forked child would inherit its parent's high-water mark
    pipes, processes, memory = {}, [], {}
    for name in names:
        pipes[name], theirs = spawn.Pipe()
        processes.append(spawn.Process(target=_work, args=(theirs, make, name, threads, warm_up)))
        processes[-1].start()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds + 1):
        for name, pipe in pipes.items():
            pipe.send(True)
            taken, *memory[name] = pipe.recv()
            seconds[name].append(taken)
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    return {name: Cost(seconds[name][1:], *memory[name]) for name in names}


def _work(pipe, make: Callable[[str], Step], name: str, threads: int, warm_up: Step | None) -> None:
    torch.set_num_threads(threads)
    if warm_up is not None:
        warm_up()
    step = make(name)
    before = _reset_peak()
    while pipe.recv():
        start = time.perf_counter()
        step()
        seconds = time.perf_counter() - start
        pipe.send((seconds, _peak() - before, _peak()))
    pipe.close()


def _peak() -> float:
    """Highest resident set so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent process too, whose copy this one was before exec
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # bytes on macOS


def _reset_peak() -> float:
    """Let the high-water mark start again from what is resident now; return it, MiB."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()
