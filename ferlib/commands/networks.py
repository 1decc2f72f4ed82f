"""Which network a command measures: one file of weights, or several whose predictions are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ferlib.data.base import DataError
from ferlib.models.pocket import averaged
from ferlib.training import Recipe, bundled, load_recipe, recipe_from
from ferlib.training.loop import logits_of
from ferlib.weights import checkpoints, load_network
from ferlib.weights.names import read_mapping


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
        stored = [checkpoints.peek(path) if path.endswith(".safetensors") else {} for path in paths]
        recipes = []
        for path, state in zip(paths, stored, strict=True):
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
        return cls([*map(Path, paths)], recipes, stored, given, read_mapping(mapping) if mapping else None)

    @property
    def recipe(self) -> Recipe:
        """The first one."""
        return self.recipes[0]

    def build(self, classes: int, output: str | None = None) -> nn.Module:
        """The network with its weights, in evaluation mode; of several files, their averaged prediction.

        Raises:
            DataError: ``output`` is none of the network's.
            CheckpointError: A file that does not fit, or is of another number of classes.
        """
        found = []
        for path in self.paths:
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
