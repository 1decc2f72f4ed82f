"""Write a trained network as one ONNX file, which runs without torch: in a page, a phone, a terminal.

  ferlib export --checkpoint runs/pocket-ferplus/best.safetensors --out pocket.onnx

The file takes gray faces, `face` (N, 1, 48, 48) with values 0 to 1, any number of them, and gives
`probabilities` (N, K), `logits` (N, K) and, for networks whose logits are means of local evidence, `evidence`
(N, K, G, G). Resizing and normalizing are inside, and so are the names of the classes. The file applies the
temperature that the checkpoint keeps (`ferlib evaluate --calibrate`). Of a batch transformer it gives the
output of each face alone. Weights are stored in half precision.

Exit status 0; 1 where the network cannot be exported, or the file differs from it by more than 0.0001 on
synthetic faces; then nothing is written.
"""

from __future__ import annotations

import argparse
import json

from ferlib.commands.networks import Network
from ferlib.data.base import DataError
from ferlib.data.labels import CLASSES
from ferlib.export import export_onnx


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib export``."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="FILE", help="best or last of a run, or an official file")
    add("--out", required=True, metavar="FILE", help="the file to write, *.onnx")
    add("--recipe", metavar="NAME", help="which network an official file is of")
    add("--dataset", choices=CLASSES, help="whose expressions it names (default: what the file says)")
    add("--json", action="store_true", help="print what was written as JSON")


def run(options: argparse.Namespace) -> int:
    """Export, compare and say what was written; return the exit status."""
    if not options.out.endswith(".onnx"):
        raise DataError(f"--out {options.out}: the file to write is called *.onnx")
    names = ",".join(CLASSES[options.dataset]) if options.dataset else None
    network = Network.find(options.checkpoint, options.recipe, classes=names)
    if network.exported:
        raise DataError("a file of `ferlib export` already: give the checkpoint", options.checkpoint)
    classes = network.classes(f"say whose they are with --dataset, one of {', '.join(CLASSES)}")
    model = network.build(len(classes))
    if isinstance(getattr(model, "inference", None), str):  # the other outputs depend on the batch
        model = network.build(len(classes), "vit")
    temperature = network.temperature(model)
    done = export_onnx(
        model,
        options.out,
        classes=classes,
        temperature=temperature,
        facts={"network": type(model).__name__, "recipe": network.recipe.name},
        **network.inputs(),
    )
    written = {"file": str(done.path), "bytes": done.path.stat().st_size, "sha256": done.sha256}
    written |= {"difference": done.difference, **done.facts}
    if options.json:
        print(json.dumps(written))
        return 0
    print(f"{done.path}: {written['bytes']:,} bytes, {written['parameters']:,} parameters")
    print(f"temperature {temperature:.3f}; SHA-256 {done.sha256}")
    print(f"largest difference between torch and onnxruntime on synthetic faces: {done.difference:.1e}")
    return 0
