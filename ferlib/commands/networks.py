"""Which network a command measures: one file of weights, or several whose predictions are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ferlib.data.base import DataError
from ferlib.data.labels import CLASSES, match_classes
from ferlib.models.pocket import averaged
from ferlib.training import Recipe, bundled, load_recipe, recipe_from
from ferlib.training.loop import logits_of
from ferlib.weights import CheckpointError, checkpoints, load_network
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

    def build(self, classes: Sequence[str] | None = None, output: str | None = None) -> nn.Module:
        """The network with its weights, in evaluation mode; of several files, their averaged prediction.

        Args:
            classes: A data set's class names: the outputs are put into its order by name. By default the
                outputs are as each file has them.
            output: Which output of a batch transformer.

        Raises:
            DataError: ``output`` is none of the network's, or it lacks a class.
            CheckpointError: A file that does not fit, or is of another number of classes.
        """
        found = []
        for path, recipe, state in zip(self.paths, self.recipes, self.stored, strict=True):
            names = class_names(path, recipe, state, classes)
            model = load_network(path, self.given, num_classes=names and len(names), mapping=self.mapping)
            if output and not hasattr(model, "inference"):
                raise DataError(f"{type(model).__name__} has one output only: leave --output out")
            if output:
                model.inference = output
            if classes and list(names) != list(classes):
                model = Picked(model, match_classes(names, classes, path.name)).eval()
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


def class_names(
    path: Path, recipe: Recipe, state: Mapping[str, Any], wanted: Sequence[str] | None
) -> Sequence[str] | None:
    """The classes of a file's outputs, in their order; for files that do not say, the ``wanted`` ones.

    Raises:
        DataError: The file does not say, and its recipe is for a data set with another order.
        CheckpointError: What it says is no list of names.
    """
    names = state.get("classes")
    if names is not None:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CheckpointError(f"{path.name}: its class names are damaged")
        return names
    usual = CLASSES[recipe.data or "ferplus"]
    if wanted and len(usual) == len(wanted) and tuple(wanted) != tuple(usual) and set(wanted) == set(usual):
        raise DataError(
            f"{path.name} holds no class names and its recipe is for the order {', '.join(usual)}; the data "
            f"set has {', '.join(wanted)}: choose the --dataset (or --recipe) that it was trained for"
        )
    return wanted


class Picked(nn.Module):
    """A network's logits (B, K) in another order, or some of them: ``columns`` (K',)."""

    def __init__(self, network: nn.Module, columns: Tensor) -> None:
        super().__init__()
        self.network, self.inference = network, getattr(network, "inference", None)
        self.register_buffer("columns", columns)

    def forward(self, images: Tensor) -> Tensor:
        return logits_of(self.network(images))[:, self.columns]


class Averaged(nn.Module):
    """Logarithms of the averaged probabilities of several networks: images -> (B, K)."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        return averaged([logits_of(network(images)) for network in self.networks])
