"""What is in a weights file, told from its names and shapes; nothing in it is run, and little of it is
read.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open

from ferlib.doctor.finding import Finding
from ferlib.models.official import CheckpointError, architectures, from_official

SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt")


def describe_weights(path: Path) -> tuple[str, str, str]:
    """Which network's weights a file holds.

    Shape: path -> (status, text, advice); status "ok", "odd" (readable, of no known network) or "broken".
    """
    try:
        tensors = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    except Exception as error:  # damaged files fail in as many ways as there are writers
        if "Unsupported global" in str(error) or "Unsupported class" in str(
            error
        ):  # what torch says of pickled things that are no tensors
            text = "holds more than weights, so it was not opened"
            return "odd", text, "keep the weights alone: save the state dict as safetensors"
        text = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        return "broken", f"cannot be read ({text})", "take the file anew, or leave it out"
    count = sum(prod(t.shape) for t in tensors.values() if isinstance(t, torch.Tensor))
    text = f"{len(tensors)} tensors, {count / 1e6:.2f} M numbers"
    fits = [name for name in architectures() if _fits(tensors, name)]
    if fits:
        return "ok", f"{text}, {' or '.join(fits)}", ""
    return "odd", f"{text}, of no network known here", f"known: {', '.join(architectures())}"


def _fits(tensors: Mapping[str, torch.Tensor], architecture: str) -> bool:
    try:
        from_official(tensors, architecture)
    except CheckpointError:
        return False
    return True


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Names and shapes only: tensors without memory."""
    with safe_open(path, framework="pt") as file:
        return {
            name: torch.empty(file.get_slice(name).get_shape(), device="meta")
            for name in file.keys()  # noqa: SIM118 - not a dict
            if not name.startswith("state/")
        }


def _torch_file(path: Path) -> Mapping[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about old formats
        found = torch.load(path, map_location="meta", weights_only=True)
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise ValueError("no state dict in it")
    return found


def look_at_weights(given: Sequence[str | os.PathLike[str]] | None) -> list[Finding]:
    """Checkpoints in named files or folders, else in ``weights``. Shape: paths -> list of Finding."""
    section, found = "Weights", []
    for path in [Path(p).expanduser() for p in given or []] or [Path("weights")]:
        files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.name.endswith(SUFFIXES))
        for file in files:
            status, text, advice = describe_weights(file)
            found.append(
                Finding(section, status if given or status != "broken" else "odd", file.name, text, advice)
            )
        if given and not files:
            text = f"no {', '.join(SUFFIXES)} file in {path}" if path.exists() else f"{path} is not there"
            found.append(Finding(section, "broken", path.name, text, "give a checkpoint file or its folder"))
    if not found:
        text = "none; the chapters need none, they train their own small networks"
        found.append(
            Finding(section, "missing", "weights", text, "if you have some: ferlib doctor --weights PATH")
        )
    return found
