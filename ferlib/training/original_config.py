"""The Neural Resizer's own ``config.json``, read as it is and turned into a recipe.

The released program imports whatever the file names, and builds it with fixed arguments. Here a name is
looked up in a table and nothing is imported, so that a config from elsewhere can do no more than train.

Source: ``config.json``, ``test.py`` and ``utils/tools.py`` of the released code. Chapter 6.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferlib.models import NETWORKS
from ferlib.training.recipes import FOLDER_NAME, Recipe, RecipeError, is_folder_name, load_recipe

CRITERIA = {
    "utils.losses.FocalLabelSmoothingLossDis": ("f-pdls", {"alpha": 0.8, "gamma": 2.0}),
    "utils.losses.LabelSmoothingLossDis": ("pdls", {"alpha": 0.5}),
    "utils.losses.CompFocalLabelSmoothingLossDis": ("compensated-f-pdls", {"alpha": 0.5}),
    "utils.losses.LabelSmoothingLoss": ("label-smoothing", {"alpha": 0.9}),
    "torch.nn.CrossEntropyLoss": ("cross-entropy", {}),
}
OPTIMIZERS = {  # and the weight decay that PyTorch gives them
    "torch.optim.Adam": ("adam", 0.0),
    "torch.optim.AdamW": ("adamw", 0.01),
    "torch.optim.SGD": ("sgd", 0.0),
}
DATA = {  # the program's data set and number of classes -> ours
    ("ferplus", 8): "ferplus",
    ("rafdb", 7): "rafdb",
    ("affectnet", 7): "affectnet7",
    ("affectnet", 8): "affectnet8",
}

MODELS = {"models.SwinT.VanillaSwinT": "", **{f"ferlib.models.{name}": name for name in NETWORKS}}
LISTS: dict[str, Collection[str]] = {  # keys whose value is one of a few
    "dataset": {kind for kind, _ in DATA},
    "model": MODELS,
    "criterion": CRITERIA,
    "optimizer": OPTIMIZERS,
    "scheduler": {"torch.optim.lr_scheduler.StepLR"},  # its step_size=15, gamma=0.25 fit no other
    "resize": {"True", "False"},
    "aligned": {"aligned", "original"},
}
NUMBERS = ("batch_size", "num_epochs", "n_classes", "lr")  # all but the last are whole
OPTIONAL = ("resize", "aligned")
KNOWN = (*LISTS, *NUMBERS, "data_dir", "exp_name")


@dataclass(frozen=True)
class OriginalConfig:
    """What a config file holds.

    Attributes:
        recipe: The run, called as the file's ``exp_name``.
        data: The folder of the data set.
        text: The file's own text.
    """

    recipe: Recipe
    data: Path
    text: str


def read_original_config(path: str | Path, protocol: str = "paper") -> OriginalConfig:
    """Read a ``config.json`` of the Neural Resizer's program.

    ``resize`` and ``aligned`` are read and change nothing, as in the program; keys that begin with ``_`` are
    comments. A relative ``data_dir`` is looked for from the working folder, as the program does, then from
    the file's. Beside the program's network ``model`` takes ``ferlib.models.<name>``.

    Args:
        path: The file.
        protocol: "paper" or "released".

    Raises:
        RecipeError: Naming the file, the key and what was expected.
    """
    path = Path(path)
    text, given = _read(path)
    data = given["dataset"], int(given["n_classes"])
    if data not in DATA:
        known = " or ".join(str(number) for kind, number in DATA if kind == data[0])
        raise RecipeError(f"{path.name}: n_classes is {data[1]}, expected {known}, as many as {data[0]} has")
    loss, loss_options = CRITERIA[given["criterion"]]
    optimizer, weight_decay = OPTIMIZERS[given["optimizer"]]
    recipe = load_recipe("vt-nr-ferplus").replace(  # what the program fixes: schedule, augmentation, seed
        name=given["exp_name"],
        loss=loss,
        loss_options=loss_options,
        optimizer=optimizer,
        weight_decay=weight_decay,
        lr=float(given["lr"]),
        batch_size=int(given["batch_size"]),
        epochs=int(given["num_epochs"]),
        data=DATA[data],
    )
    if model := MODELS[given["model"]]:
        recipe = recipe.replace(model=model, model_options={}, weights={}, image_size=None)
    folder = Path(given["data_dir"]).expanduser()
    if not folder.is_absolute() and not folder.exists() and (path.parent / folder).exists():
        folder = path.parent / folder
    return OriginalConfig(recipe.with_protocol(protocol), folder, text)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """The file's text and its checked values."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        given = {key: value for key, value in json.loads(text).items() if not key.startswith("_")}
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; give the program's config.json") from None
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise RecipeError(f"{path.name} is no JSON object of keys and values: {error}") from None
    if unknown := sorted(given.keys() - set(KNOWN)):
        known = f"{', '.join(KNOWN)}, and comments: _..."
        raise RecipeError(f"{path.name}: unknown key {unknown[0]!r}; known are {known}")
    if missing := [key for key in KNOWN if key not in given and key not in OPTIONAL]:
        raise RecipeError(f"{path.name}: the key {missing[0]!r} is missing")
    for key, value in given.items():
        if expected := _expected(key, value):
            raise RecipeError(f"{path.name}: {key} is {value!r:.80}, expected {expected}")
    return text, given


def _expected(key: str, value: Any) -> str:
    """What a value should have been; "" where it will do."""
    if key in LISTS:
        return "" if str(value) in LISTS[key] else f"one of {', '.join(sorted(LISTS[key]))}"
    if key in NUMBERS:
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
        fine = number and (key == "lr" or value == int(value))
        return "" if fine else f"a {'' if key == 'lr' else 'whole '}number above 0"
    if key == "exp_name":
        return "" if is_folder_name(value) else FOLDER_NAME
    return "" if isinstance(value, str) and value.strip() else "a text"
