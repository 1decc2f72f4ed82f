"""A recipe: everything that decides a training run, in one small file that can be read and run again.

The bundled recipes are YAML files in ``ferlib/training/recipes/``. A run folder holds a copy of the one it
followed, so that ``load_recipe("runs/x/recipe.yaml")`` runs it again. Chapter 6.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from ferlib.errors import FerlibError

FOLDER = Path(__file__).parent / "recipes"
_RENAMED = {"optimiser": "optimizer"}  # keys of recipes in kept checkpoints that have another name now
_CHOICES = {
    "targets": ("label", "votes"),
    "loss": ("cross-entropy", "label-smoothing", "pdls", "f-pdls", "compensated-f-pdls"),
    "augment": ("none", "light", "neural-resizer", "flip-erase"),
    "optimizer": ("adam", "adamw", "sgd"),
    "schedule": ("constant", "cosine", "step", "exponential"),
    "select": ("accuracy", "loss"),
    "protocol": ("paper", "released"),
    "interpolation": ("bicubic", "bilinear"),
    "precision": ("fp32", "bf16", "auto"),
    "compile": ("never", "gpu", "always"),
    "on_fault": ("stop", "skip"),
    "data": (None, "ferplus", "rafdb", "affectnet7", "affectnet8"),
}


class RecipeError(FerlibError):
    """A recipe that cannot be followed; the message names the file, the key and what was expected."""


@dataclass(frozen=True)
class Recipe:
    r"""All choices of one training run.

    The learning rate at training time t (in epochs, a step is ``1 / steps_per_epoch``) is

    .. math:: \mathrm{lr}(t) = \mathrm{lr} \cdot \min(1, t / w) \cdot s(t)

    with w = ``warmup`` epochs and s one of: constant 1; cosine
    ``floor + (1 - floor) (1 + cos(pi (t - w) / (T - w))) / 2`` over the T ``epochs``; step
    ``decay ** (n // step_size)``; exponential ``decay ** n``, where n counts the finished epochs (as
    PyTorch's StepLR and ExponentialLR when stepped after each epoch; stepped before, n is one more).

    The protocol is how a run is validated. "paper": on the validation split, on untouched faces, by averages
    over faces; the test split is for the end. "released" is what the Neural Resizer's code does
    (``utils/train_model.py``, ``utils/dataloaders.py``): the validated faces go through the training's random
    augmentation in random order, the schedule is stepped before each epoch, losses and accuracies are
    averages of batch averages; its caller validates on the test split and takes the lowest loss as best
    (:meth:`with_protocol`). Chapter 6.

    Attributes:
        name: What the run is called.
        model: A name in ``ferlib.models``.
        model_options: Its arguments.
        loss: cross-entropy, label-smoothing, pdls, f-pdls or compensated-f-pdls.
        loss_options: Its arguments.
        vit_weight: The lambda of ``L = lambda L_VIT + L_BT + L_CBA``; used where a model has several outputs.
        targets: "label" (majority label) or "votes" (the annotators' vote distribution).
        data: The kind of data set that it is for, or None for any.
        balance: Draw every class equally often (with replacement), instead of every face once.
        weights: What the network starts from: part of the network -> name of a pretrained file.
        epochs: Passes over the training set.
        batch_size: Faces of one batch, over all processes together.
        accumulate: Batches whose gradients are added up for one step. Each stays a batch of its own for batch
            attention and batch norm: 4 x 16 faces are *not* 64 to them (``accumulated_step``).
        optimizer: adam, adamw or sgd.
        lr: Learning rate, above 0.
        lr_scale: Part of the network -> factor of its learning rate, above 0; the others have 1.
        weight_decay: At least 0.
        sam_rho: Radius of SAM's ball, or None for none.
        schedule: constant, cosine, step or exponential; with ``warmup``, ``decay``, ``step_size`` and
            ``floor`` in the equation above.
        clip: Largest norm of the gradient, or None.
        ema: Decay of the averaged weights in [0, 1), or None for none; the average is what is evaluated and
            kept.
        augment: none, light, neural-resizer or flip-erase (``ferlib.data.transforms.Augment``).
        augment_options: What of it is to be changed.
        image_size: Side in pixels that faces are resized to before the network, or None for as they are.
        interpolation: How they are resized, bicubic or bilinear.
        select: What "best" means on validation, highest accuracy or lowest loss.
        protocol: "paper" or "released", see above.
        precision: "fp32"; "bf16" for autocast (weights stay in 32 bits); "auto" for bf16 where the device
            computes in it, as new GPUs and some processors do.
        compile: Whether ``torch.compile`` translates the network: "never"; "gpu", where its minutes pay off;
            "always". Where no compiler works the run goes on without.
        channels_last: Keep the channels of a pixel side by side, which makes convolutions faster.
        on_fault: What to do about a face that cannot be read in mid-run: "stop" (the run is saved first), or
            "skip" it and count it, unless more than half of a batch is lost.
        save_minutes: A checkpoint inside an epoch after so many minutes; 0 after every step.
        seed: Of the order of the data, augmentation and dropout.

    Raises:
        RecipeError: For a value out of range.
    """

    name: str = "untitled"
    model: str = "btn_small"
    model_options: dict[str, Any] = field(default_factory=dict)
    loss: str = "f-pdls"
    loss_options: dict[str, Any] = field(default_factory=dict)
    vit_weight: float = 1.0
    targets: str = "label"
    data: str | None = None
    balance: bool = False
    weights: dict[str, str] = field(default_factory=dict)
    epochs: int = 20
    batch_size: int = 64
    accumulate: int = 1
    optimizer: str = "adamw"
    lr: float = 1e-3
    lr_scale: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.05
    sam_rho: float | None = None
    schedule: str = "cosine"
    warmup: float = 1.0
    decay: float = 0.98
    step_size: int = 15
    floor: float = 0.0
    clip: float | None = 5.0
    ema: float | None = None
    augment: str = "light"
    augment_options: dict[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    interpolation: str = "bicubic"
    select: str = "accuracy"
    protocol: str = "paper"
    precision: str = "fp32"
    compile: str = "never"
    channels_last: bool = True
    on_fault: str = "stop"
    save_minutes: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not is_folder_name(self.name):  # a run's folder is called so
            raise RecipeError(f"a recipe's name is {self.name!r:.80}, expected {FOLDER_NAME}")
        for key, allowed in _CHOICES.items():
            if getattr(self, key) not in allowed:
                raise RecipeError(
                    f"recipe '{self.name}': {key} is {getattr(self, key)!r:.80}, expected one of {allowed}"
                )
        ranges = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "accumulate": self.accumulate >= 1,
            "save_minutes": self.save_minutes >= 0,
            "lr": 0 < self.lr < math.inf,
            "lr_scale": all(0 < scale < math.inf for scale in self.lr_scale.values()),
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "vit_weight": 0 <= self.vit_weight < math.inf,
            "warmup": 0 <= self.warmup < math.inf,
            "decay": 0 <= self.decay < math.inf,
            "floor": 0 <= self.floor < math.inf,
            "step_size": self.step_size >= 1,
            "sam_rho": self.sam_rho is None or 0 < self.sam_rho < math.inf,
            "ema": self.ema is None or 0 <= self.ema < 1,
            "clip": self.clip is None or self.clip > 0,
            "image_size": self.image_size is None or 8 <= self.image_size <= 4096,
            "seed": abs(self.seed) < 2**63,
        }
        for key, fine in ranges.items():
            if not fine:
                value = f"{getattr(self, key)!r:.80}"
                raise RecipeError(f"recipe '{self.name}': {key} is {value}, which is out of range")

    def lr_at(self, time: float, step: float = 0.0) -> float:
        """Learning rate of a step that begins at ``time`` and takes ``step``, both in epochs.

        Warm-up and cosine are read at the step's end, so that the first one moves; what changes from epoch to
        epoch is read at its beginning.
        """
        ramp = min(1.0, (time + step) / self.warmup) if self.warmup else 1.0
        count = math.floor(time + 1e-9)  # a time summed from steps may fall a hair short of a whole epoch
        count += self.protocol == "released"
        shapes = {
            "constant": lambda: 1.0,
            "cosine": lambda: (
                self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * self._progress(time + step)))
            ),
            "step": lambda: self.decay ** (count // self.step_size),
            "exponential": lambda: self.decay**count,
        }
        return self.lr * ramp * shapes[self.schedule]()

    def _progress(self, time: float) -> float:
        rest = self.epochs - self.warmup
        return min(1.0, max(0.0, (time - self.warmup) / rest)) if rest > 0 else 0.0

    def with_protocol(self, protocol: str) -> Recipe:
        """The recipe under a protocol; the released one takes the lowest loss as best."""
        return self.replace(protocol=protocol, **({"select": "loss"} if protocol == "released" else {}))

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some choices changed, checked as a file is."""
        return recipe_from(asdict(self) | changes, f"recipe '{self.name}'")

    def to_yaml(self) -> str:
        """The recipe as YAML text that ``load_recipe`` reads back."""
        return yaml.safe_dump(asdict(self), sort_keys=False)


def recipe_from(values: Any, where: str) -> Recipe:
    """A recipe from what a YAML file or a checkpoint holds; missing keys take their defaults.

    Args:
        values: Key -> value.
        where: What error messages begin with.

    Raises:
        RecipeError: For an unknown key, or a value of the wrong kind or out of range.
    """
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: expected 'key: value' lines, found {type(values).__name__}")
    values = {_RENAMED.get(str(key), key): value for key, value in values.items()}
    known = [entry.name for entry in fields(Recipe)]
    if unknown := sorted(str(key) for key in values if key not in known):
        raise RecipeError(f"{where}: unknown key {unknown[0]!r:.80}; known are {', '.join(known)}")
    return Recipe(**{key: _value(where, key, value) for key, value in values.items()})


def bundled() -> list[str]:
    """Names of the recipes that come with ferlib, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a bundled recipe by its name (such as "btn-small-ferplus"), or any YAML file by its path.

    Raises:
        RecipeError: For a name that is not there, a file that is not YAML or has aliases, an unknown key or a
            value of the wrong kind.
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        raise RecipeError(f"no recipe '{name_or_path}': give a YAML file or one of {', '.join(bundled())}")
    try:
        text = path.read_text(encoding="utf-8")
        if len(re.findall(r"[\[{]", text)) > 1000:  # YAML's reader takes hours for a hundred thousand
            raise RecipeError(f"{path.name} has over a thousand brackets: no recipe needs so many")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise RecipeError(
                f"{path.name} repeats a part by an alias (*name), which can swell: write it out"
            )
        return recipe_from(yaml.safe_load(text), path.name)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{path.name} is not a YAML file: {str(error)[:200]}") from error


FOLDER_NAME = "the name of a folder: letters, digits, spaces and _.+=,@-"


def is_folder_name(value: Any) -> bool:
    """Whether a value names one folder, wherever it is put: no path, no parent."""
    named = isinstance(value, str) and re.fullmatch(r"[\w.+=,@ -]{1,120}", value)
    return bool(named) and not set(value) <= {".", " "}


def _value(where: str, key: str, value: Any) -> Any:
    """YAML reads 1e-3 as text and 3.0 as a float: make values what the recipe says they are, or say so."""
    kind = str(Recipe.__dataclass_fields__[key].type)
    if value is None and "None" in kind:
        return None
    try:
        if kind.startswith("float") and not isinstance(value, bool):
            return float(value)
        if kind.startswith("int") and not isinstance(value, bool) and int(value) == float(value):
            return int(value)
        if kind == "dict[str, float]":
            return {str(part): float(scale) for part, scale in value.items()}
        if kind == "dict[str, str]" and all(isinstance(name, str) for name in value.values()):
            return value
    except (TypeError, ValueError, OverflowError, AttributeError):
        pass
    if isinstance(
        value, {"str": str, "bool": bool, "dict[str, Any]": dict}.get(kind.removesuffix(" | None"), ())
    ):
        return value
    raise RecipeError(f"{where}: {key} is {value!r:.80}, expected {kind}")
