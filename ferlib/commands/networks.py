"""Which network a command measures: a checkpoint of ours with its recipe, or an official file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ferlib.commands.faces import check_classes
from ferlib.data.base import DataError
from ferlib.models import ResizedTransformer, from_official
from ferlib.models.ensemble import mean_answer
from ferlib.models.official_files import read_official
from ferlib.models.pretrained import architecture_of
from ferlib.training import Recipe, build_model, bundled, checkpoints, load_recipe, recipe_from
from ferlib.training.loop import logits_of


@dataclass
class Network:
    """A weights file and the recipe that says which network it is of; :meth:`build` reads the weights.

    Shape: a path, a recipe, and for official files the file of ``--mapping``.
    """

    path: Path
    recipe: Recipe
    stored: dict[str, Any]
    mapping: str | None = None

    @classmethod
    def find(cls, path: str, recipe: str | None = None, mapping: str | None = None) -> Network:
        """Read what the file says of itself. Raises ``DataError`` where nothing says which network it is of,
        ``CheckpointError`` for a file that cannot be read.
        """
        stored = checkpoints.load(path) if path.endswith(".safetensors") else {}
        if recipe:
            return cls(Path(path), load_recipe(recipe), stored, mapping)
        if "recipe" in stored:
            return cls(Path(path), recipe_from(stored["recipe"], Path(path).name), stored, mapping)
        raise DataError(
            f"{path} holds no recipe: give --recipe, one of {', '.join(bundled())}; or a "
            "checkpoint that `ferlib train` wrote"
        )

    def build(self, classes: int, output: str | None = None) -> nn.Module:
        """The network with its weights, in evaluation mode. Raises ``DataError`` where the file is of
        another number of classes, ``CheckpointError`` where it does not fit.
        """
        model = build_model(self.recipe, num_classes=classes)
        if self.stored:
            weights = self.stored["model"]
            if heads := [t for name, t in weights.items() if name.endswith("head.bias")]:
                check_classes(len(heads[-1]), classes, "the network")
            checkpoints.check(self.path.name, weights, model)
            model.load_state_dict(weights)
        else:
            self._load_official(model)
        if output:
            if not hasattr(model, "inference"):
                raise DataError(f"{type(model).__name__} has one output only: leave --output out")
            model.inference = output
        return model.eval()

    def facts(self) -> dict[str, Any]:
        """What a record says of it: words by name."""
        return {"recipe": self.stored.get("recipe", self.recipe.name), "checkpoint": str(self.path)}

    def inputs(self) -> dict[str, Any]:
        """How its faces are resized: ``image_size`` and ``interpolation``, as ``predict`` takes them."""
        return {"image_size": self.recipe.image_size, "interpolation": self.recipe.interpolation}

    def _load_official(self, model: nn.Module) -> None:
        mapping = None
        if self.mapping:
            try:
                mapping = json.loads(Path(self.mapping).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise DataError(f"{self.mapping}: not a readable JSON file ({error})") from None
            if not isinstance(mapping, dict):
                raise DataError(f"{self.mapping}: expected an object of names, {{theirs: ours or null}}")
        network = "vt-nr-swin-base" if isinstance(model, ResizedTransformer) else architecture_of(model)
        if network is None:
            raise DataError(f"{self.path}: no official weights are known for a {type(model).__name__}")
        model.load_state_dict(from_official(read_official(str(self.path)), network, mapping=mapping))


@dataclass
class Networks:
    """Several files that are asked together: the mean of the probabilities that each of them gives.

    Shape: M networks that take pictures of one size. It answers to what a :class:`Network` answers to.
    """

    members: list[Network]

    @classmethod
    def find(
        cls, paths: list[str], recipe: str | None = None, mapping: str | None = None
    ) -> Network | Networks:
        """The network of one file, or what several files are together. Raises as :meth:`Network.find`, and
        ``DataError`` where two of them take pictures of different sizes.
        """
        found = [Network.find(path, recipe, mapping) for path in paths]
        for other in found[1:]:
            if other.inputs() != found[0].inputs():
                raise DataError(
                    f"{other.path} takes pictures as {other.inputs()}, {found[0].path} as "
                    f"{found[0].inputs()}: expected one size for files that are asked together"
                )
        return found[0] if len(found) == 1 else cls(found)

    @property
    def recipe(self) -> Recipe:
        return self.members[0].recipe

    def build(self, classes: int, output: str | None = None) -> nn.Module:
        """Their mean, in evaluation mode. Raises as :meth:`Network.build`."""
        return Together([member.build(classes, output) for member in self.members]).eval()

    def facts(self) -> dict[str, Any]:
        """What a record says of them: a list for each word."""
        every = [member.facts() for member in self.members]
        return {name: [facts[name] for facts in every] for name in every[0]}

    def inputs(self) -> dict[str, Any]:
        """How their faces are resized."""
        return self.members[0].inputs()


class Together(nn.Module):
    """Logarithms of the mean of several networks' probabilities. Shape: images -> (B, K)."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        return mean_answer([logits_of(network(images)) for network in self.networks])


Asked = Network | Networks  # what a command measures
