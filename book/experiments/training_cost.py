"""What a full run of every recipe costs: operations counted, hours and money estimated by device.

    python -m book.experiments.training_cost

Counted: the multiply-adds of a forward pass and of a whole training step per face (forward, backward, both
passes of SAM, a frozen branch once), by torch's own counter on tensors without memory. Taken from elsewhere
and named in the record: faces of each data set, peak speeds of devices. Assumed and stated as ranges: the
share of the peak that training reaches, and prices. Measured: real training steps on one core of the
processor the script runs on. Writes ``book/results/training_cost.json``, in about three minutes.
"""

from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ferlib.evaluation import ResultRecord
from ferlib.training import (
    Recipe,
    build_criterion,
    build_model,
    build_optimizer,
    load_recipe,
    train_step,
    versions,
)
from ferlib.training.device import computes_bf16

NAME = "training_cost"
FULL = (
    "vt-nr-ferplus",
    "vt-nr-rafdb",
    "vt-nr-affectnet8",
    "poster-v2-rafdb",
    "poster-v2-affectnet7",
    "poster-v2-affectnet8",
    "btn-rafdb",
    "btn-affectnet7",
    "btn-affectnet8",
)
SMALL = ("vt-nr-ferplus-small", "btn-small-ferplus")
TIMED = ("vt-nr-ferplus", "poster-v2-rafdb", "btn-rafdb", *SMALL)  # the others repeat these networks
# Training faces: FER+ by majority label (chapter 1); the other counts as their authors publish them.
FACES = {"ferplus": 25_045, "rafdb": 12_271, "affectnet7": 283_901, "affectnet8": 287_651}
FACES_FROM = {
    "ferplus": "training faces with a majority label, record ferplus_labels",
    "rafdb": "RAF-DB, basic expressions, training split (Li, Deng and Du, 2017)",
    "affectnet7": "AffectNet, manually annotated training faces without contempt (Mollahosseini, 2017)",
    "affectnet8": "AffectNet, manually annotated training faces of eight expressions (the same)",
}
# Dense peak, no structured sparsity, in the width that `precision: auto` takes there; dollars an hour.
DEVICES = [
    {"device": "T4", "peak": 8.1e12, "width": "fp32", "price": [0.35, 0.75],
     "source": "NVIDIA T4 data sheet: 8.1 TFLOPS FP32 (65 in FP16, but this GPU has no bf16)"},
    {"device": "A100", "peak": 312e12, "width": "bf16", "price": [0.80, 3.00],
     "source": "NVIDIA A100 data sheet: 312 TFLOPS BF16 Tensor Core"},
    {"device": "H100", "peak": 989e12, "width": "bf16", "price": [2.00, 5.00],
     "source": "NVIDIA H100 SXM data sheet: 1,979 TFLOPS BF16 Tensor Core with sparsity, half of it without"},
    {"device": "H200", "peak": 989e12, "width": "bf16", "price": [2.50, 7.00],
     "source": "NVIDIA H200 SXM data sheet: as H100, with more memory"},
]  # fmt: skip
UTILISATION = [0.15, 0.45]  # of the peak; networks of this size at these batch sizes seldom reach half
CORES, SCALING = 8, [0.6, 0.9]  # the processor's row: eight such cores, and what of eight times one is left
CORE_PRICE = [0.03, 0.06]  # dollars for a core and an hour


def side_of(recipe: Recipe) -> int:
    return recipe.image_size or 48


def classes_of(recipe: Recipe) -> int:
    return 7 if recipe.data in ("rafdb", "affectnet7") else 8


def counted(recipe: Recipe, batch: int = 2) -> dict[str, float]:
    """Multiply-adds per face of one forward pass and of one whole training step, and the weights."""
    with torch.device("meta"):
        model = build_model(recipe, num_classes=classes_of(recipe)).train()
        images = torch.empty(batch, 3, side_of(recipe), side_of(recipe))
        target = torch.zeros(batch, dtype=torch.long)
    prior = torch.full((classes_of(recipe),) * 2, 1 / classes_of(recipe))  # only its shape counts here
    criterion = build_criterion(recipe, prior=prior).to("meta")
    frozen = model.frozen(images) if hasattr(model, "frozen") else None
    given = {} if frozen is None else {"frozen": frozen}
    whole = multiply_adds(lambda: model(images)) / batch
    learned = multiply_adds(lambda: model(images, **given)) / batch
    both = multiply_adds(lambda: criterion(model(images, **given), target).backward()) / batch
    passes = 1 if recipe.sam_rho is None else 2
    return {
        "forward": whole,
        "learned": learned,
        "frozen": whole - learned,
        "pass": both,
        "passes": passes,
        "step": whole - learned + passes * both,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def multiply_adds(run: object) -> float:
    """Half of what torch's counter counts, which takes a multiply-add as two."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 2


def timed(recipe: Recipe, precision: str, batch: int, steps: int) -> dict[str, float]:
    """Seconds of one core per face of real training steps: their median, the fastest and the slowest."""
    model: nn.Module = build_model(recipe, num_classes=classes_of(recipe)).train()
    model.to(memory_format=torch.channels_last)
    criterion, optimizer = build_criterion(recipe), build_optimizer(recipe, model)
    images: Tensor = torch.randn(batch, 3, side_of(recipe), side_of(recipe))
    images = images.contiguous(memory_format=torch.channels_last)
    target = torch.arange(batch) % classes_of(recipe)
    seconds = []
    for _ in range(steps + 1):
        began = time.process_time()
        train_step(model, criterion, optimizer, images, target, clip=recipe.clip, precision=precision)
        seconds.append((time.process_time() - began) / batch)
    rest = seconds[1:]  # the first one also allocates and chooses algorithms
    return {"median": statistics.median(rest), "low": min(rest), "high": max(rest), "batch": batch}


def width_of(recipe: Recipe) -> str:
    """What the recipe's precision means on this processor."""
    narrow = recipe.precision == "bf16" or (recipe.precision == "auto" and computes_bf16("cpu"))
    return "bf16" if narrow else "fp32"


def estimate(total: float) -> list[dict[str, object]]:
    """Hours and dollars by device for a number of floating-point operations: [low, high] each."""
    rows = []
    for device in DEVICES:
        hours = [total / (device["peak"] * share) / 3600 for share in reversed(UTILISATION)]
        money = [hours[0] * device["price"][0], hours[1] * device["price"][1]]
        rows.append({"device": device["device"], "hours": hours, "dollars": money})
    return rows


def main() -> None:
    torch.set_num_threads(1)

    speed = {}
    for name in TIMED:
        batch, steps = (32, 8) if name in SMALL else (4, 3)
        speed[name] = {}
        for precision in ("fp32", "bf16") if computes_bf16("cpu") else ("fp32",):
            speed[name][precision] = timed(load_recipe(name), precision, batch, steps)
            print(f"{name}, {precision}: {speed[name][precision]['median']:.3f} s of one core for a face")
    rows = []
    for name in (*FULL, *SMALL):
        recipe = load_recipe(name)
        faces = FACES[recipe.data or "ferplus"]
        cost = counted(recipe)
        twin = next(other for other in TIMED if load_recipe(other).model == recipe.model)
        total = 2 * cost["step"] * faces * recipe.epochs  # two operations in a multiply-add
        core = [speed[twin][width_of(recipe)][k] * faces * recipe.epochs / 3600 for k in ("low", "high")]
        hours = [core[0] / (CORES * SCALING[1]), core[1] / (CORES * SCALING[0])]
        money = [hours[i] * CORES * CORE_PRICE[i] for i in (0, 1)]  # the fastest run at the lowest price
        processor = {
            "device": f"{CORES} cores",
            "hours": hours,
            "dollars": money,
            "width": width_of(recipe),
            "measured on": twin,
        }
        rows.append(
            {
                "recipe": name,
                "faces": faces,
                "epochs": recipe.epochs,
                "multiply-adds": cost,
                "total FLOP": total,
                "devices": [*estimate(total), processor],
            }
        )
        times = cost["step"] / cost["forward"]
        print(f"{name}: {cost['forward'] / 1e9:.2f} G forward, {times:.2f} of it a step, {total:.2e} FLOP")
    record = ResultRecord(
        NAME,
        "what a full run of each recipe costs: multiply-adds counted; hours and money an estimate from peak "
        "speeds, an assumed utilisation and assumed prices; the processor's hours from measured steps",
        data={"faces": FACES, "from": FACES_FROM},
        settings={
            "devices": DEVICES,
            "utilisation": UTILISATION,
            "processor": {
                "cores": CORES,
                "scaling": SCALING,
                "dollars for a core and an hour": CORE_PRICE,
                "timing": "processor time of one thread, random images, the recipe's own precision",
            },
            "prices": "assumed, dollars an hour as asked in 2026; they differ severalfold and change monthly",
            "left out": "validation, reading and enlarging faces, super-resolution beforehand",
        },
        extra={
            "rows": rows,
            "seconds of one core per face": speed,
            "computes bf16": computes_bf16("cpu"),
            "processor": platform.processor() or platform.machine(),
        },
        versions=versions(),
        command=f"python -m book.experiments.{Path(__file__).stem}",
    )
    print(f"{record.save()} written")


if __name__ == "__main__":
    main()
