"""Which network a command measures, and what its file says of itself."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferlib.data.base import DataError
from ferlib.data.labels import CLASSES
from ferlib.data.transforms import IMAGENET_MEAN, IMAGENET_STD, LUMINANCE
from ferlib.errors import class_names
from ferlib.predict import FaceReader
from ferlib.training import Recipe, bundled, load_recipe, recipe_from
from ferlib.weights import checkpoints, load_network, read_weights
from ferlib.weights.names import read_mapping

#: Checkpoints of this book that hold no class names, by their SHA-256: the data set whose names they have.
NAMELESS = {
    "021e726079a57b6bcfb00aa6e31e23bba5488bc2969f6a476c2e0dd261866b6b": "ferplus",  # pocket_ferplus
    "aa1a582d3c9eeb662c01c60dc56a9f728410537baac96377d6fb8208cd4beccb": "ferplus",  # best_alone_ferplus
}


@dataclass
class Network:
    """A file of weights and the recipe that says which network it is of; :meth:`build` reads the weights.

    Attributes:
        path: The file.
        recipe: Which network it is of.
        stored: What the file says of itself, nothing for an official one.
        given: The recipe of the command line, if there is one.
        mapping: Places for names of official files that are not known.
    """

    path: Path
    recipe: Recipe
    stored: dict[str, Any]
    given: Recipe | None = None
    mapping: Mapping[str, str | None] | None = None

    @classmethod
    def find(
        cls,
        path: str,
        recipe: str | None = None,
        mapping: str | None = None,
        classes: str | None = None,
    ) -> Network:
        """Read what the file says of itself; official files need ``recipe``, and may need ``mapping``.

        ``classes`` are names with commas between them in the order of the outputs, for files that hold none.

        Raises:
            DataError: Nothing says which network the file is of, or it has other classes.
            CheckpointError: A file that cannot be read.
        """
        given = load_recipe(recipe) if recipe else None
        stored = _peek(path)
        if path.endswith(".onnx"):
            found = Recipe(name=Path(path).stem, image_size=stored["face_size"])
        elif given or "recipe" in stored:
            found = given or recipe_from(stored["recipe"], Path(path).name)
        else:
            raise DataError(
                f"{path} holds no recipe: give --recipe, one of {', '.join(bundled())}; or a checkpoint "
                "that `ferlib train` wrote"
            )
        typed = tuple(name.strip() for name in classes.split(",")) if classes else None
        try:
            names = stored.get("classes", typed or CLASSES.get(found.data or ""))
            names = None if names is None else class_names(names)
        except ValueError as error:
            raise DataError(str(error), path) from None
        if names and typed and names != typed:
            raise DataError(f"has the classes {', '.join(names)}; expected {', '.join(typed)}", path)
        stored |= {"classes": names} if names else {}
        return cls(Path(path), found, stored, given, read_mapping(mapping) if mapping else None)

    def classes(self, option: str) -> tuple[str, ...]:
        """The names of its classes in the order of its outputs.

        Raises:
            DataError: Neither file nor recipe nor command line says them; it advises that ``option``.
        """
        if "classes" not in self.stored:
            raise DataError(f"names no classes, so the order of its outputs is unknown: {option}", self.path)
        return self.stored["classes"]

    @property
    def exported(self) -> bool:
        """Whether it is a file of ``ferlib export``, whose temperature is applied inside."""
        return self.path.suffix == ".onnx"

    def temperature(self, model: nn.Module) -> float:
        """The temperature that the checkpoint keeps for the output that the network gives; 1 for none.

        Raises:
            DataError: It is no number above 0.
        """
        kept = self.stored.get("temperature", {})
        value = kept.get(_output(model), 1.0) if isinstance(kept, dict) else kept
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise DataError(f"temperature is {str(value)[:40]!r}, expected a number above 0", self.path)
        return float(value)

    def keep_temperature(self, model: nn.Module, value: float) -> None:
        """Put a temperature into the checkpoint, for every command that reads it.

        Raises:
            DataError: It is no checkpoint of ours.
        """
        if self.path.suffix != ".safetensors":
            raise DataError(f"{self.path}: a temperature is kept in a .safetensors file of ours")
        weights, state = checkpoints.read(self.path)
        state["temperature"] = {**state.get("temperature", {}), _output(model): value}
        if "classes" in self.stored:
            state["classes"] = list(self.stored["classes"])
        checkpoints.save(self.path, weights, state)
        self.stored["temperature"] = state["temperature"]

    def build(self, classes: int, output: str | None = None) -> nn.Module:
        """The network with its weights, in evaluation mode.

        Raises:
            DataError: ``output`` is none of the network's.
            CheckpointError: A file that does not fit, or is of another number of classes.
        """
        if self.exported:
            return ExportedNetwork(self.path)
        model = load_network(self.path, self.given, num_classes=classes, mapping=self.mapping)
        if output and not hasattr(model, "inference"):
            raise DataError(f"{type(model).__name__} has one output only: leave --output out")
        if output:
            model.inference = output
        return model

    def facts(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"recipe": self.stored.get("recipe", self.recipe.name), "checkpoint": str(self.path)}

    def inputs(self) -> dict[str, Any]:
        """How its faces are resized: ``image_size`` and ``interpolation``, as ``predict`` takes them."""
        return {"image_size": self.recipe.image_size, "interpolation": self.recipe.interpolation}


class ExportedNetwork(nn.Module):
    """A file of ``ferlib export``, run as ``ferlib predict`` runs it: normalized images -> (B, K)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.reader = FaceReader(path)

    def forward(self, images: Tensor) -> Tensor:
        mean, std, gray = (
            torch.tensor(one)[:, None, None] for one in (IMAGENET_MEAN, IMAGENET_STD, LUMINANCE)
        )
        pixels = ((images.cpu() * std + mean) * gray).sum(1).mul(255).round().clamp(0, 255)
        found = self.reader.read(pixels.to(torch.uint8).numpy())
        return torch.from_numpy(np.stack([one.probabilities for one in found])).clamp_min(1e-12).log()


def _peek(path: str) -> dict[str, Any]:
    if path.endswith(".onnx"):
        return dict(FaceReader(path).facts)
    state = dict(read_weights(path, numbers=False).state)
    if "made of" in state and "classes" not in state:  # as the book's own checkpoints
        kind = NAMELESS.get(hashlib.sha256(Path(path).read_bytes()).hexdigest())
        state |= {"classes": CLASSES[kind]} if kind else {}
    return state


def _output(model: nn.Module) -> str:
    """The name of the output that a network gives, of several or its only one."""
    return str(getattr(model, "inference", "logits"))
