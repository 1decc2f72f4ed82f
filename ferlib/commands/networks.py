"""Which network a command measures: one file of weights, or several whose predictions are averaged."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferlib.data.base import DataError
from ferlib.data.labels import CLASSES
from ferlib.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from ferlib.errors import class_names
from ferlib.models.pocket import averaged
from ferlib.predict import FaceReader
from ferlib.training import Recipe, bundled, load_recipe, recipe_from
from ferlib.training.loop import logits_of
from ferlib.weights import checkpoints, load_network, read_weights
from ferlib.weights.names import read_mapping

LUMINANCE = (0.299, 0.587, 0.114)
#: Checkpoints of this book that hold no class names, by their SHA-256: the data set whose names they have.
NAMELESS = {
    "021e726079a57b6bcfb00aa6e31e23bba5488bc2969f6a476c2e0dd261866b6b": "ferplus",  # pocket_ferplus
    "aa1a582d3c9eeb662c01c60dc56a9f728410537baac96377d6fb8208cd4beccb": "ferplus",  # best_alone_ferplus
}


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
        cls,
        paths: str | Sequence[str],
        recipe: str | None = None,
        mapping: str | None = None,
        classes: str | None = None,
    ) -> Network:
        """Read what the files say of themselves.

        Args:
            paths: The files.
            recipe, mapping: For official files.
            classes: Names of the classes with commas between them, in the order of the outputs, for files
                that hold none.

        Raises:
            DataError: Nothing says which network a file is of, or two of them take images of different sizes
                or have other classes.
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
        typed = tuple(name.strip() for name in classes.split(",")) if classes else None
        first = None
        for path, state, one in zip(paths, stored, recipes, strict=True):
            try:
                names = state.get("classes", typed or CLASSES.get(one.data or ""))
                names = None if names is None else class_names(names)
            except ValueError as error:
                raise DataError(str(error), path) from None
            first = first or typed or names
            if names and names != first:
                raise DataError(f"has the classes {', '.join(names)}; expected {', '.join(first)}", path)
            state |= {"classes": names} if names else {}
        return cls([*map(Path, paths)], recipes, stored, given, read_mapping(mapping) if mapping else None)

    @property
    def recipe(self) -> Recipe:
        """The first one."""
        return self.recipes[0]

    def classes(self, option: str) -> tuple[str, ...]:
        """The names of its classes in the order of its outputs.

        Raises:
            DataError: Neither file nor recipe nor command line says them; it advises that ``option``.
        """
        for path, state in zip(self.paths, self.stored, strict=True):
            if "classes" not in state:
                raise DataError(f"names no classes, so the order of its outputs is unknown: {option}", path)
        return self.stored[0]["classes"]

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
        if "classes" in self.stored[0]:
            state["classes"] = list(self.stored[0]["classes"])
        checkpoints.save(path, weights, state)
        self.stored[0]["temperature"] = state["temperature"]

    def build(self, classes: int, output: str | None = None) -> nn.Module:
        """The network with its weights, in evaluation mode; of several files, their averaged prediction.

        Raises:
            DataError: ``output`` is none of the network's.
            CheckpointError: A file that does not fit, or is of another number of classes.
        """
        found: dict[Path, nn.Module] = {}
        for path in dict.fromkeys(self.paths):
            if path.suffix == ".onnx":
                found[path] = ExportedNetwork(path)
                continue
            found[path] = model = load_network(path, self.given, num_classes=classes, mapping=self.mapping)
            if output and not hasattr(model, "inference"):
                raise DataError(f"{type(model).__name__} has one output only: leave --output out")
            if output:
                model.inference = output
        networks = [found[path] for path in self.paths]
        return networks[0] if len(networks) == 1 else Averaged(networks).eval()

    def facts(self) -> dict[str, Any]:
        """What a record says of it: words by name, or a list of them for several files."""
        recipes = [s.get("recipe", r.name) for s, r in zip(self.stored, self.recipes, strict=True)]
        found = {"recipe": recipes, "checkpoint": [*map(str, self.paths)]}
        return found if len(self.paths) > 1 else {name: values[0] for name, values in found.items()}

    def inputs(self) -> dict[str, Any]:
        """How its faces are resized: ``image_size`` and ``interpolation``, as ``predict`` takes them."""
        return {"image_size": self.recipe.image_size, "interpolation": self.recipe.interpolation}


class Averaged(nn.Module):
    """Logarithms of the averaged probabilities of several networks: images -> (B, K).

    One that is named several times is computed once and counts several times.
    """

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        logits = {network: logits_of(network(images)) for network in self.networks.children()}
        return averaged([logits[network] for network in self.networks])


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
