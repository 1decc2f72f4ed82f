"""POSTER V2 against the released formulation, same weights: inference, one SAM step, and peak memory.

The formulations take turns, each in a process of its own (``turns.py``); reported are the median step and the
memory that the steps add at most to weights and inputs. It asserts that logits and gradients agree,
and no time::

    python benchmarks/poster_v2.py [--what inference training gpu] [--threads 2] [--rounds 7]

"ferlib" rows compute in float32 as the original does; "bf16" rows are a choice of their own (autocast).
Training goes through ``ferlib.training``'s own step. On a GPU: training images per second, and the share of
the matrix product's measured ceiling.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

import torch
from original_poster_v2 import OriginalPosterV2, OriginalSAM
from torch import nn
from torch.nn import functional as F
from turns import take_turns

from ferlib.models import BatchTransformerNetwork, PosterV2, btn_small
from ferlib.training.loop import train_step
from ferlib.training.sam import SAM

CLASSES = 7
INFERENCE = TRAINING = "original", "ferlib", "ferlib, bf16"


def network() -> PosterV2:
    torch.manual_seed(0)
    return PosterV2(CLASSES)


def images(batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(1))


def inference(name: str, batch: int) -> Callable[[], None]:
    """One forward pass of a formulation, ready to be called."""
    model, given = network().eval(), images(batch)
    if name == "original":
        model = OriginalPosterV2(model).eval()
    else:
        model, given = (one.to(memory_format=torch.channels_last) for one in (model, given))

    def step() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled="bf16" in name):
            model(given)

    return step


def training(name: str, batch: int) -> Callable[[], None]:
    """One SAM step (two passes, Adam) of a formulation, ready to be called."""
    given, labels = images(batch), torch.arange(batch) % CLASSES
    if name == "original":
        return original_step(given, labels)
    model = network().train().to(memory_format=torch.channels_last)
    given = given.contiguous(memory_format=torch.channels_last)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = SAM(trainable, torch.optim.Adam, rho=0.05, lr=3.5e-5)
    precision = "bf16" if "bf16" in name else "fp32"

    def step() -> None:
        train_step(model, nn.CrossEntropyLoss(), optimizer, given, labels, precision=precision)
        optimizer.zero_grad(set_to_none=True)

    return step


def original_step(given: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """The released program's SAM step, on the device of its images."""
    original = OriginalPosterV2(network()).to(given.device).train()
    sam = OriginalSAM(original.parameters(), lr=3.5e-5)
    return lambda: sam.step(lambda: F.cross_entropy(original(given), labels).backward())


MAKERS = {"inference": inference, "training": training}


def warm_up() -> None:
    btn_small()(torch.randn(2, 3, 48, 48)).bt.sum().backward()


def ready(name: str, what: str, batch: int) -> Callable[[], None]:
    return MAKERS[what](name, batch)


def compare(what: str, names: tuple[str, ...], batch: int, threads: int, rounds: int) -> None:
    make = partial(ready, what=what, batch=batch)
    costs = take_turns(make, names, rounds, threads=threads, warm_up=warm_up)
    kind = {"inference": "inference", "training": "one SAM step"}[what]
    print(f"\n{kind}, batch {batch}, {threads} threads, median of {rounds}")
    base = costs["original"]
    for name, cost in costs.items():
        print(
            f"  {name:22s} {1e3 * cost.median:9.0f} ms  {batch / cost.median:6.2f} images/s  "
            f"x{base.median / cost.median:.2f} as fast ({cost.median / base.median:.2f} of the time)  "
            f"peak +{cost.added:5.0f} MiB ({cost.added / base.added:.2f}), whole process "
            f"{cost.whole:5.0f} MiB ({cost.whole / base.whole:.2f})"
        )


def check() -> None:
    """The formulations agree: logits, and gradients of all weights."""
    model = network().eval()
    for parameter in model.encoder.fusion.parameters():  # gains that matter
        if parameter.ndim == 1:
            parameter.data.add_(0.1)
    original, given, labels = OriginalPosterV2(model).eval(), images(2), torch.arange(2)
    found = []
    for net in (original, model):
        F.cross_entropy(net(given), labels).backward()
        found.append({n.removeprefix("net."): p.grad for n, p in net.named_parameters()})
    with torch.inference_mode():
        torch.testing.assert_close(model(given), original(given), rtol=1e-4, atol=1e-5)
    for name, gradient in found[1].items():
        if gradient is not None:
            torch.testing.assert_close(gradient, found[0][name], rtol=1e-3, atol=1e-4, msg=name)
    print("logits and gradients of all formulations agree")


def gpu(batch: int, rounds: int) -> None:
    """Training images per second on a GPU, and the share of a large matrix product's rate."""
    device = torch.device("cuda")
    given = images(batch).to(device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % CLASSES

    def rate(step: Callable[[], None]) -> float:
        for _ in range(3):
            step()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(rounds):
            step()
        torch.cuda.synchronize()
        return rounds / (time.perf_counter() - start)

    rates = {"original formulation, fp32": rate(original_step(given.contiguous(), labels))}
    torch.manual_seed(0)
    model = BatchTransformerNetwork(CLASSES).to(device, memory_format=torch.channels_last).train()
    optimizer = SAM([p for p in model.parameters() if p.requires_grad], torch.optim.Adam, lr=2e-5)

    class Sum(nn.Module):
        def forward(self, outputs, target):
            return sum(F.cross_entropy(logits, target) for logits in outputs)

    for precision in ("fp32", "bf16"):
        rates[f"BTN, ferlib, {precision}"] = rate(
            lambda precision=precision: train_step(
                model, Sum(), optimizer, given, labels, precision=precision
            )
        )
    left = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    ceiling = 2 * 8192**3 * rate(lambda: left @ left)
    work_done = 2 * 3 * 2 * 8.0e9 * batch  # two passes, forward and twice that backward, 8.0 G multiply-adds
    print(f"\none SAM step on {torch.cuda.get_device_name()}, batch {batch}")
    base = rates["original formulation, fp32"]
    for name, value in rates.items():
        print(
            f"  {name:28s} {value * batch:8.1f} images/s  x{value / base:.2f}  "
            f"{work_done * value / ceiling:.1%} of the bf16 matrix product's {ceiling / 1e12:.0f} TFLOP/s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", nargs="+", default=["inference", "training", "gpu"])
    parser.add_argument("--inference-batch", type=int, default=16)
    parser.add_argument("--training-batch", type=int, default=8)
    parser.add_argument("--gpu-batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    check()
    if "inference" in options.what:
        compare("inference", INFERENCE, options.inference_batch, options.threads, options.rounds)
    if "training" in options.what:
        compare("training", TRAINING, options.training_batch, options.threads, options.rounds)
    if "gpu" in options.what and torch.cuda.is_available():
        gpu(options.gpu_batch, 4 * options.rounds)


if __name__ == "__main__":
    main()
