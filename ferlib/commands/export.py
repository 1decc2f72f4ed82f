"""Write a trained network as one ONNX file, which runs without torch: in a page, a phone, a terminal.

  ferlib export --checkpoint runs/pocket-ferplus/best.safetensors --out pocket.onnx
  ferlib export --checkpoint runs/pocket-ferplus/best.safetensors --out pocket.onnx --data ~/FERPlus

The file takes gray faces, `face` (N, 1, 48, 48) with values 0 to 1, any number of them, and gives
`probabilities` (N, K), `logits` (N, K) and, for networks whose logits are means of local evidence, `evidence`
(N, K, G, G). Resizing and normalizing are inside, and so are the names of the classes. With --data the
temperature that calibrates the probabilities is fitted on the validation faces and kept in the checkpoint, as
`ferlib evaluate --calibrate` keeps it; the file applies it. Weights are stored in half precision.

Exit status 0; 1 where the network cannot be exported, or the file differs from it by more than 0.0001 on
synthetic faces; then nothing is written.
"""

from __future__ import annotations

import argparse
import json

from ferlib.commands.evaluate import with_classes
from ferlib.commands.faces import KINDS, choose_faces
from ferlib.commands.networks import Network
from ferlib.data.base import DataError
from ferlib.data.labels import CLASSES
from ferlib.evaluation import fit_temperature, predict
from ferlib.export import export_onnx


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib export``."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="FILE", help="best or last of a run, or an official file")
    add("--out", required=True, metavar="FILE", help="the file to write, *.onnx")
    add("--recipe", metavar="NAME", help="which network an official file is of")
    output = "output of a batch transformer (default vit: a face alone; the others depend on the batch)"
    add("--output", choices=("vit", "bt", "cba"), help=output)
    add("--dataset", choices=KINDS, help="whose expressions it names (default: what the file says)")
    add("--data", metavar="DIR", help="fit the temperature on this data set's validation faces")
    add(
        "--temperature",
        type=float,
        metavar="T",
        help="this temperature instead (default: what the file keeps, or 1)",
    )
    add("--face", type=int, default=48, metavar="PX", help="side of the faces it takes (default 48)")
    add("--json", action="store_true", help="print what was written as JSON")


def run(options: argparse.Namespace) -> int:
    """Export, compare and say what was written; return the exit status."""
    if not options.out.endswith(".onnx"):
        raise DataError(f"--out {options.out}: the file to write is called *.onnx")
    if options.data and options.temperature is not None:
        raise DataError("--data fits a temperature, --temperature gives one: choose one of them")
    if not 8 <= options.face <= 512:
        raise DataError(f"--face {options.face}: expected the side of a face in pixels, 8 to 512")
    names = ",".join(CLASSES[options.dataset]) if options.dataset else None
    network = Network.find(options.checkpoint, options.recipe, classes=names)
    if network.exported:
        raise DataError("a file of `ferlib export` already: give the checkpoint", options.checkpoint)
    classes = network.classes(f"say whose they are with --dataset, one of {', '.join(KINDS)}")
    model = network.build(len(classes))
    if options.output or isinstance(getattr(model, "inference", None), str):
        model = network.build(len(classes), options.output or "vit")
    temperature = network.temperature(model) if options.temperature is None else options.temperature
    if options.data:
        valid = choose_faces(options.data, options.dataset, network.recipe.data).open("valid")
        valid = with_classes(valid, classes)
        temperature = fit_temperature(*predict(model, valid, **network.inputs()))
        if network.paths[0].suffix == ".safetensors":  # an official file is left as it is
            network.keep_temperature(model, temperature)
    done = export_onnx(
        model,
        options.out,
        classes=classes,
        face_size=options.face,
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
