"""Write a trained network as one ONNX file, which runs without torch: in a page, a phone, a terminal.

  ferlib export --checkpoint runs/pocket-ferplus/best.safetensors --out pocket.onnx
  ferlib export --checkpoint runs/pocket-ferplus/best.safetensors --out pocket.onnx --data ~/FERPlus

The file takes grey faces, `face` (N, 1, 48, 48) with values 0 to 1, and gives `probabilities` (N, K),
`logits` (N, K) and, for networks whose logits are means of local evidence, `evidence` (N, K, G, G). Resizing
and normalizing are inside, and the temperature that calibrates the probabilities: the one that `ferlib
evaluate --calibrate` has put into the checkpoint, or, with --data, one that is fitted now on the validation
faces and kept there. Weights are stored in half precision (--full: single).

Before the command ends it compares the file with the network on drawn faces. Exit code 0, or 1 where they
differ by more than 0.0001 or the network cannot be exported.
"""

from __future__ import annotations

import argparse

import torch

from ferlib.commands.faces import KINDS, choose_faces
from ferlib.commands.networks import Network
from ferlib.data.base import DataError
from ferlib.data.faces import drawn_faces
from ferlib.data.labels import EMOTIONS_AFFECTNET, EMOTIONS_FERPLUS, EMOTIONS_RAFDB
from ferlib.data.transforms import to_float
from ferlib.evaluation import fit_temperature, predict
from ferlib.export import TOLERANCE, ExportError, export_onnx, parity
from ferlib.training import RecipeError
from ferlib.weights import CheckpointError

CLASSES = {
    "ferplus": EMOTIONS_FERPLUS,
    "rafdb": EMOTIONS_RAFDB,
    "affectnet8": EMOTIONS_AFFECTNET,
    "affectnet7": EMOTIONS_AFFECTNET[:7],
    "affectnet": EMOTIONS_AFFECTNET,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib export``."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="FILE", help="best or last of a run, or an official file")
    add("--out", required=True, metavar="FILE", help="the file to write, *.onnx")
    add("--recipe", metavar="NAME", help="which network an official file is of")
    output = "output of a batch transformer (default vit: a face alone; the others depend on the batch)"
    add("--output", choices=("vit", "bt", "cba"), help=output)
    add("--dataset", choices=KINDS, help="whose expressions it names (default: what the recipe is for)")
    add("--data", metavar="DIR", help="fit the temperature on this data set's validation faces")
    add("--temperature", type=float, metavar="T", help="this temperature instead of the checkpoint's")
    add("--face", type=int, default=48, metavar="PX", help="side of the faces it takes (default 48)")
    add("--full", action="store_true", help="weights in single precision: twice the size")


def run(options: argparse.Namespace) -> int:
    """Export, compare and say what was written; return the exit code."""
    if not options.out.endswith(".onnx"):
        raise DataError(f"--out {options.out}: the file to write is called *.onnx")
    if options.data and options.temperature is not None:
        raise DataError("--data fits a temperature, --temperature gives one: choose one of them")
    if options.face < 8:
        raise DataError(f"--face {options.face}: expected the side of a face in pixels, 8 or more")
    try:
        network = Network.find(options.checkpoint, options.recipe)
        kind = options.dataset or network.recipe.data or "ferplus"
        model = network.build(len(CLASSES[kind]))
        if options.output or isinstance(getattr(model, "inference", None), str):
            model = network.build(len(CLASSES[kind]), options.output or "vit")
        temperature = network.temperature(model) if options.temperature is None else options.temperature
        if options.data:
            valid = choose_faces(options.data, options.dataset, network.recipe.data).open("valid")
            temperature = fit_temperature(*predict(model, valid, **network.inputs()))
            if network.paths[0].suffix == ".safetensors":  # an official file is left as it is
                network.keep_temperature(model, temperature)
        done = export_onnx(
            model,
            options.out,
            classes=CLASSES[kind],
            face_size=options.face,
            temperature=temperature,
            half=not options.full,
            facts={"network": type(model).__name__, "recipe": network.recipe.name},
            **network.inputs(),
        )
    except (CheckpointError, RecipeError, ExportError) as error:
        raise DataError(str(error)) from error
    faces = to_float(drawn_faces("valid", length=8, size=options.face).batch(torch.arange(8))["image"])
    largest = max(parity(done.path, done.module, faces).values())
    print(f"{done.path}: {done.path.stat().st_size:,} bytes, {done.facts['parameters']:,} parameters")
    print(f"temperature {temperature:.3f}; SHA-256 {done.sha256}")
    print(f"largest difference between torch and onnxruntime on 8 drawn faces: {largest:.1e}")
    if largest > TOLERANCE:
        raise DataError(f"{done.path} differs from the network by more than {TOLERANCE}: do not use it")
    return 0
