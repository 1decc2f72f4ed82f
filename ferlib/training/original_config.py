"""The Neural Resizer's own ``config.json``, read as it is and turned into a recipe.

The released program imports whatever the file names, and builds it with fixed arguments. Here a name is
looked up in a table and nothing is imported, so that a config from elsewhere can do no more than train.

Source: ``config.json``, ``test.py`` and ``utils/tools.py`` of the released code. Chapter 6.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferlib.models import NETWORKS
from ferlib.training.recipes import Recipe, RecipeError, load_recipe

#: What the released program calls its parts, and what they are here.
MODELS = {"models.SwinT.VanillaSwinT": "ResizedTransformer"}
CRITERIA = {
    "utils.losses.FocalLabelSmoothingLossDis": ("f-pdls", {"alpha": 0.8, "gamma": 2.0}),
    "utils.losses.LabelSmoothingLossDis": ("pdls", {"alpha": 0.5}),
    "utils.losses.CompFocalLabelSmoothingLossDis": ("compensated-f-pdls", {"alpha": 0.5}),
    "utils.losses.LabelSmoothingLoss": ("label-smoothing", {"alpha": 0.9}),
    "torch.nn.CrossEntropyLoss": ("cross-entropy", {}),
}
OPTIMISERS = {
    "torch.optim.Adam": ("adam", 0.0),
    "torch.optim.AdamW": ("adamw", 0.01),  # PyTorch's own weight decay
    "torch.optim.SGD": ("sgd", 0.0),
}
SCHEDULERS = ("torch.optim.lr_scheduler.StepLR",)  # the program gives step_size=15, gamma=0.25: no other fits
CLASSES = {"ferplus": (8,), "rafdb": (7,), "affectnet": (7, 8)}
NEEDED = (
    "batch_size", "data_dir", "dataset", "model", "exp_name", "criterion", "optimizer", "lr", "scheduler",
    "num_epochs", "n_classes",
)  # fmt: skip
OPTIONAL = ("resize", "aligned")


@dataclass(frozen=True)
class OriginalConfig:
    """What a config file asks for: ``recipe``, ``data`` (a folder), ``dataset`` (its kind), ``exp_name``, and
    the file's own ``text``.

    Shape: a recipe, a path and strings. Chapter 6.
    """

    recipe: Recipe
    data: Path
    dataset: str
    exp_name: str
    text: str


def read_original_config(path: str | Path, protocol: str = "paper") -> OriginalConfig:
    """Read a ``config.json`` of the Neural Resizer's program.

    ``resize`` is read and changes nothing, as in the program; keys that begin with ``_`` are comments. A
    relative ``data_dir`` is looked for from the working folder, as the program does, then from the file's.
    Beside the program's names ``model`` takes ``ferlib.models.<name>``.

    Shape: a path and "paper" or "released" in, an :class:`OriginalConfig` out. Raises ``RecipeError``, naming
    the file, the key and what was expected. Chapter 6.
    """
    path = Path(path)
    text, given = _read(path)
    check = _Checker(path.name, given)
    number = check.integer("n_classes")
    kind = check.one_of("dataset", CLASSES)
    if number not in CLASSES[kind]:
        check.fail("n_classes", f"{' or '.join(map(str, CLASSES[kind]))}, as many as {kind} has")
    check.truth("resize")
    if given.get("aligned") not in (None, "aligned", "original"):
        check.fail("aligned", '"aligned" or "original"')
    criterion, loss_options = CRITERIA[check.one_of("criterion", CRITERIA)]
    optimiser, weight_decay = OPTIMISERS[check.one_of("optimizer", OPTIMISERS)]
    check.one_of("scheduler", SCHEDULERS)
    model = _model(check)
    name = check.text("exp_name")
    if not re.fullmatch(r"[\w.+=,@ -]{1,120}", name) or set(name) <= {".", " "}:
        check.fail("exp_name", "a name for a folder: letters, digits, '_', '-', '.', no '/'")
    base = load_recipe("vt-nr-ferplus")  # what the program has written into it: schedule, augmentation, seed
    own = model != base.model
    recipe = base.but(
        name=name, model=model, model_options={} if own else base.model_options,
        weights={} if own else base.weights, loss=criterion, loss_options=loss_options, optimiser=optimiser,
        weight_decay=weight_decay, lr=check.positive("lr"), batch_size=check.integer("batch_size"),
        epochs=check.integer("num_epochs"), image_size=None if own else base.image_size,
        data=f"{kind}{number}" if kind == "affectnet" else kind,
    )  # fmt: skip
    folder = Path(check.text("data_dir")).expanduser()
    if not folder.is_absolute() and not folder.exists() and (path.parent / folder).exists():
        folder = path.parent / folder
    return OriginalConfig(recipe.under(protocol), folder, recipe.data or kind, name, text)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        given = json.loads(text)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; give the program's config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path.name} cannot be read as JSON: {error}") from None
    if not isinstance(given, dict):
        raise RecipeError(
            f"{path.name}: expected an object of keys and values, found a {type(given).__name__}"
        )
    given = {key: value for key, value in given.items() if not key.startswith("_")}
    if unknown := sorted(set(given) - {*NEEDED, *OPTIONAL}):
        known = ", ".join((*NEEDED, *OPTIONAL))
        raise RecipeError(f"{path.name}: unknown key {unknown[0]!r}; known are {known}, and comments: _...")
    if missing := [key for key in NEEDED if key not in given]:
        raise RecipeError(f"{path.name}: the key {missing[0]!r} is missing; needed are {', '.join(NEEDED)}")
    return text, given


def _model(check: _Checker) -> str:
    name = check.text("model")
    own = name.removeprefix("ferlib.models.")
    if own != name and own in NETWORKS:
        return own
    return MODELS[check.one_of("model", (*MODELS, "ferlib.models.<a network>"))]


class _Checker:
    """Reads one key after the other; what is wrong is an error that names file, key and expectation."""

    def __init__(self, name: str, given: dict[str, Any]) -> None:
        self.name, self.given = name, given

    def fail(self, key: str, expected: str) -> None:
        found = repr(self.given.get(key))
        found = found if len(found) <= 80 else f"{found[:77]}..."
        raise RecipeError(f"{self.name}: {key} is {found}, expected {expected}")

    def text(self, key: str) -> str:
        if not isinstance(self.given[key], str) or not self.given[key].strip():
            self.fail(key, "a text")
        return self.given[key]

    def one_of(self, key: str, known: Any) -> str:
        if not isinstance(self.given[key], str) or self.given[key] not in known:
            self.fail(key, f"one of {', '.join(known)}")
        return self.given[key]

    def integer(self, key: str) -> int:
        value = self._number(key, "a whole number above 0")
        if value != int(value) or value < 1:
            self.fail(key, "a whole number above 0")
        return int(value)

    def positive(self, key: str) -> float:
        value = self._number(key, "a number above 0")
        if value <= 0:
            self.fail(key, "a number above 0")
        return value

    def _number(self, key: str, expected: str) -> float:
        value = self.given[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.fail(key, expected)
        return float(value)

    def truth(self, key: str) -> None:
        """The program reads these as ``json.loads(value.lower())``; true and false of JSON are taken too."""
        value = self.given.get(key, True)
        if not isinstance(value, bool) and str(value).lower() not in ("true", "false"):
            self.fail(key, '"True" or "False"')
