"""F-PDLS, forward and backward: how much the indexed prior saves.

Three ways to the same loss and gradient, on the same batch, in turn:

- ``list, face by face``: for every face its row of the prior is taken from a Python list and made a tensor,
  the label is read back as a number, the rows are stacked (how the loss is often written at first);
- ``list, one tensor``: the rows are collected in a Python list of lists and made one tensor;
- ``ferlib``: the rows are indexed.

Prints microseconds and the ratios. Asserts that the three agree, and no time::

    python benchmarks/f_pdls.py [--batch 64] [--device cpu] [--threads 1]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ferlib.losses import FERPLUS_PRIOR, FocalPDLSLoss

ALPHA, GAMMA = 0.8, 2.0
ROWS = FERPLUS_PRIOR.tolist()


def face_by_face(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    soft = []
    for label in target:
        one_hot = torch.zeros(len(ROWS), device=logits.device)
        one_hot[label] = 1.0
        soft.append(ALPHA * one_hot + (1 - ALPHA) * torch.tensor(ROWS[int(label)], device=logits.device))
    log_p = F.log_softmax(logits, dim=1)
    return -(torch.stack(soft) * (1 - log_p.exp()) ** GAMMA * log_p).sum(1).mean()


def one_tensor(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    rows = torch.tensor([ROWS[int(label)] for label in target], device=logits.device)
    soft = ALPHA * F.one_hot(target, len(ROWS)) + (1 - ALPHA) * rows
    log_p = F.log_softmax(logits, dim=1)
    return -(soft * (1 - log_p.exp()) ** GAMMA * log_p).sum(1).mean()


def step(loss: Callable, logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits.grad = None
    value = loss(logits, target)
    value.backward()
    return value.detach(), logits.grad


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="a batch of 64 gains nothing from more")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    logits = torch.randn(options.batch, len(ROWS), device=options.device, requires_grad=True)
    target = torch.randint(0, len(ROWS), (options.batch,), device=options.device)
    ways = {
        "list, face by face": face_by_face,
        "list, one tensor": one_tensor,
        "ferlib": FocalPDLSLoss(ALPHA, GAMMA).to(options.device),
    }
    value, gradient = step(ways["ferlib"], logits, target)
    for name, loss in ways.items():
        other, its_gradient = step(loss, logits, target)
        torch.testing.assert_close(other, value, rtol=1e-5, atol=0, msg=name)
        torch.testing.assert_close(its_gradient, gradient, rtol=1e-4, atol=1e-8, msg=name)
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(options.rounds):  # in turn, so that a busy moment of the machine meets all three
        for name, loss in ways.items():
            start = time.perf_counter()
            for _ in range(3):
                step(loss, logits, target)
            if options.device.startswith("cuda"):
                torch.cuda.synchronize()
            best[name] = min(best[name], (time.perf_counter() - start) / 3)
    print(f"F-PDLS forward + backward, batch {options.batch}, {options.device}, torch {torch.__version__}")
    for name, seconds in best.items():
        print(f"  {name:20s} {1e6 * seconds:8.1f} us   {seconds / best['ferlib']:5.1f} x ferlib")


if __name__ == "__main__":
    main()
