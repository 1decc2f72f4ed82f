"""What it costs to look: capturing attention against a plain forward pass, and rollout beyond it.

1. A Swin-T and a batch of 16: a forward pass inside ``AttentionRecorder`` (every weight of every layer is
   kept until the next pass) against the same pass without, as a ratio, with fused attention on and off.
2. Rollout for 100 pictures: forward, capture and rollout together, less the forward alone, in seconds, for
   ViT-Ti, ViT-S (12 layers, 224 pixels) and Swin-T.

Both ways take turns, so that a busy machine is busy for both; reported is the median over the rounds, with
the smallest and largest. Asserts that the answers are equal and that rows sum to one, and no time::

    python benchmarks/attention_capture.py [--rounds 7] [--threads 2] [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

from book.figures.maps import rollout_rows
from ferlib.explain import AttentionRecorder

SWIN = "swin_tiny_patch4_window7_224"
TINY, SMALL = "vit_tiny_patch16_224", "vit_small_patch16_224"


def network(name: str, size: int, fused: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=size, num_classes=8, pretrained=False).eval()
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused
    return model


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def turns(one: Callable[[], object], other: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Both, one after the other, in turns; the first round warms up and is left out."""
    found = [(seconds(one), seconds(other)) for _ in range(rounds + 1)]
    return found[1:]


def told(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):6.3f} {unit} ({min(values):.3f} to {max(values):.3f})"


def capture(size: int, fused: bool, batch: int, rounds: int) -> None:
    model, images = network(SWIN, size, fused), torch.randn(batch, 3, size, size)
    kept: list[Tensor] = []

    def plain() -> Tensor:
        return model(images)

    def recorded() -> Tensor:
        with AttentionRecorder(model) as recorder:
            answer = model(images)
        kept[:] = [record.weights for record in recorder.records]
        return answer

    torch.testing.assert_close(recorded(), plain(), rtol=0, atol=0)
    torch.testing.assert_close(kept[0].sum(-1), torch.ones(kept[0].shape[:-1]))
    times = turns(plain, recorded, rounds)
    size_of = sum(weights.numel() * weights.element_size() for weights in kept) / 2**20
    print(
        f"  {size:3d} px, fused {'on ' if fused else 'off'}: {told([b / a for a, b in times], 'times')}; "
        f"plain {1e3 * statistics.median(a for a, _ in times):.0f} ms, {size_of:.0f} MiB of weights"
    )


def beyond(name: str, size: int, count: int, part: int, rounds: int) -> None:
    model, images = network(name, size), torch.randn(count, 3, size, size)

    def plain() -> None:
        for some in images.split(part):
            model(some)

    def rolled() -> Tensor:
        maps = []
        for some in images.split(part):
            with AttentionRecorder(model, heads="mean") as recorder:
                model(some)
            maps.append(rollout_rows(recorder.records))
        return torch.cat(maps)

    found = rolled()
    torch.testing.assert_close(found.sum(1), torch.ones(count))
    times = turns(plain, rolled, rounds)
    print(
        f"  {name}, {size} px: {told([b - a for a, b in times], 's')} beyond the forward's "
        f"{statistics.median(a for a, _ in times):.2f} s"
    )


@torch.no_grad()
def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--part", type=int, default=20, help="pictures of one forward pass of the rollout")
    parser.add_argument("--quick", action="store_true", help="few rounds, small pictures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rounds = 3 if options.quick else options.rounds
    print(f"{options.threads} threads, median of {rounds} rounds (least to greatest)")
    print(f"Swin-T, batch of {options.batch}, all attention captured, against a plain forward pass:")
    for size in (96, 112) if options.quick else (96, 112, 224):
        for fused in (True, False):
            capture(size, fused, options.batch, rounds)
    print(f"Rollout of {options.images} pictures, capture and rollout together:")
    for name, size in ((TINY, 224), (SMALL, 224), (SWIN, 112), (SWIN, 224)):
        if not options.quick or (name, size) in ((TINY, 224), (SWIN, 112)):
            beyond(name, size, options.images, options.part, min(rounds, 3))


if __name__ == "__main__":
    main()
