"""Which network a command measures: one file of weights, or several whose predictions are averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferlib.data.base import DataError
from ferlib.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ferlib.models.pocket import averaged
from ferlib.predict import FaceReader
from ferlib.training import Recipe, bundled, load_recipe, recipe_from
from ferlib.training.loop import logits_of
from ferlib.weights import checkpoints, load_network
from ferlib.weights.names import read_mapping

LUMINANCE = (0.299, 0.587, 0.114)


@dataclass
class Network:
    """Files of weights and the recipes that say which networks they are of; :meth:`build` reads the weights.

    Attributes:
        paths: The files.
        recipes: A recipe for each.
        stored: What each file says of itself, nothing for official ones.
        given: The recipe of the command line, if there is one.
        mapping: Places for names of official files that are not known.
    """

    paths: list[Path]
    recipes: list[Recipe]
    stored: list[dict[str, Any]]
    given: Recipe | None = None
    mapping: Mapping[str, str | None] | None = None

    @classmethod
    def find(
        cls, paths: str | Sequence[str], recipe: str | None = None, mapping: str | None = None
    ) -> Network:
        """Read what the files say of themselves.

        Raises:
            DataError: Nothing says which network a file is of, or two of them take images of different sizes.
            CheckpointError: A file that cannot be read.
        """
        paths = [paths] if isinstance(paths, str) else list(paths)
        given = load_recipe(recipe) if recipe else None
        stored = [_peek(path) for path in paths]
        recipes = []
        for path, state in zip(paths, stored, strict=True):
            if path.endswith(".onnx"):
                recipes.append(Recipe(name=Path(path).stem, image_size=state["face_size"]))
                continue
            if not given and "recipe" not in state:
                raise DataError(
                    f"{path} holds no recipe: give --recipe, one of {', '.join(bundled())}; or a checkpoint "
                    "that `ferlib train` wrote"
                )
            recipes.append(given or recipe_from(state["recipe"], Path(path).name))
        sizes = [(one.image_size, one.interpolation) for one in recipes]
        for path, size in zip(paths, sizes, strict=True):
            if size != sizes[0]:
                raise DataError(
                    f"{path} takes images of {size}, {paths[0]} of {sizes[0]}: expected one size for files "
                    "whose predictions are averaged"
                )
        orders = [state["classes"] for state in stored if "classes" in state]
        for names in orders:
            if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
                raise DataError(f"{', '.join(paths)}: the class names are damaged, expected a list of names")
            if list(names) != list(orders[0]):
                raise DataError(
                    f"{', '.join(paths)} have other classes: {names}, {orders[0]}; expected one order"
                )
        return cls([*map(Path, paths)], recipes, stored, given, read_mapping(mapping) if mapping else None)

    @property
    def recipe(self) -> Recipe:
        """The first one."""
        return self.recipes[0]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of its classes, where the file says them."""
        return next((tuple(state["classes"]) for state in self.stored if "classes" in state), None)

    @property
    def exported(self) -> bool:
        """Whether it is a file of ``ferlib export``, whose temperature is applied inside."""
        return self.paths[0].suffix == ".onnx"

    def temperature(self, model: nn.Module) -> float:
        """The temperature that the checkpoint keeps for the output that the network gives; 1 for none.

        Raises:
            DataError: It is no number above 0.
        """
        kept = self.stored[0].get("temperature", {}) if len(self.paths) == 1 else {}
        value = kept.get(_output(model), 1.0) if isinstance(kept, dict) else kept
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise DataError(f"temperature is {str(value)[:40]!r}, expected a number above 0", self.paths[0])
        return float(value)

    def keep_temperature(self, model: nn.Module, value: float) -> None:
        """Put a temperature into the checkpoint, for every command that reads it.

        Raises:
            DataError: It is no single checkpoint of ours.
        """
        path = self.paths[0]
        if len(self.paths) > 1 or path.suffix != ".safetensors":
            raise DataError(f"{path}: a temperature is kept in a single .safetensors file of ours")
        weights, state = checkpoints.read(path)
        state["temperature"] = {**state.get("temperature", {}), _output(model): value}
        checkpoints.save(path, weights, state)
        self.stored[0]["temperature"] = state["temperature"]

    def build(self, classes: int, output: str | None = None) -> nn.Module:
        """The network with its weights, in evaluation mode; of several files, their averaged prediction.

        Raises:
            DataError: ``output`` is none of the network's.
            CheckpointError: A file that does not fit, or is of another number of classes.
        """
        found = []
        for path in self.paths:
            if path.suffix == ".onnx":
                found.append(ExportedNetwork(path))
                continue
            model = load_network(path, self.given, num_classes=classes, mapping=self.mapping)
            if output and not hasattr(model, "inference"):
                raise DataError(f"{type(model).__name__} has one output only: leave --output out")
            if output:
                model.inference = output
            found.append(model)
        return found[0] if len(found) == 1 else Averaged(found).eval()

    def facts(self) -> dict[str, Any]:
        """What a record says of it: words by name, or a list of them for several files."""
        recipes = [s.get("recipe", r.name) for s, r in zip(self.stored, self.recipes, strict=True)]
        found = {"recipe": recipes, "checkpoint": [*map(str, self.paths)]}
        return found if len(self.paths) > 1 else {name: values[0] for name, values in found.items()}

    def inputs(self) -> dict[str, Any]:
        """How its faces are resized: ``image_size`` and ``interpolation``, as ``predict`` takes them."""
        return {"image_size": self.recipe.image_size, "interpolation": self.recipe.interpolation}


class Averaged(nn.Module):
    """Logarithms of the averaged probabilities of several networks: images -> (B, K)."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        return averaged([logits_of(network(images)) for network in self.networks])


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
    if not Path(path).is_file():
        raise DataError("the file is not there", path)
    if path.endswith(".onnx"):
        return FaceReader(path).facts
    return checkpoints.peek(path) if path.endswith(".safetensors") else {}


def _output(model: nn.Module) -> str:
    """The name of the output that a network gives, of several or its only one."""
    return str(getattr(model, "inference", "logits"))
