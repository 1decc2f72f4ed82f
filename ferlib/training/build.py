"""From the words of a recipe to objects: network, its first weights, criterion, augmentation, optimizer."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import ferlib.losses
from ferlib.data.base import DataError, FaceDataset
from ferlib.data.transforms import Augment
from ferlib.models import ResizedTransformer
from ferlib.models.common import evaluating
from ferlib.models.resized_transformer import PAPER_BACKBONE
from ferlib.training.recipes import Recipe, RecipeError
from ferlib.training.sam import SAM
from ferlib.weights import (
    PRETRAINED,
    CheckpointError,
    build_network,
    find_pretrained,
    load_pretrained,
    missing,
)


def build_model(recipe: Recipe, num_classes: int = 8) -> nn.Module:
    """The recipe's network with fresh weights, drawn from the recipe's seed.

    Raises:
        RecipeError: A name that is not in ``ferlib.models.NETWORKS``, and options that the network does not
            take or that a recipe may not set (:func:`ferlib.weights.build_network`).

    Chapter 6.
    """
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        try:
            return build_network(recipe.model, recipe.model_options, num_classes)
        except CheckpointError as error:
            raise RecipeError(f"recipe '{recipe.name}': {error}") from error


@torch.no_grad()
def check_image_size(model: nn.Module, recipe: Recipe, faces: FaceDataset) -> None:
    """Refuse faces of a size that the network cannot take, by running it on two black pictures.

    They are as large as ``faces`` where the recipe has no ``image_size``.

    Raises:
        RecipeError: Naming recipe, ``image_size`` and what the network says.
    """
    if (side := recipe.image_size or face_side(faces)) is None:
        return
    device = next((parameter.device for parameter in model.parameters()), "cpu")
    try:
        with evaluating(model):
            model(torch.zeros(2, 3, side, side, device=device))
    except (RuntimeError, ValueError, AssertionError) as error:  # torch's, the networks' and timm's words
        given = "" if recipe.image_size else "is left out, and faces have "
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RecipeError(
            f"recipe '{recipe.name}': image_size {given}{side} pixels, which {recipe.model} cannot take "
            f"({reason}): set image_size to one that it takes"
        ) from error


def face_side(faces: FaceDataset) -> int | None:
    """Pixels of the first face that can be read, or None: what cannot be read, the loader tells."""
    for index in range(len(faces)):
        with suppress(DataError, OSError):
            return faces[index]["image"].shape[-1]
    return None


def build_criterion(recipe: Recipe, *, prior: Tensor | None = None) -> nn.Module:
    """The recipe's loss ``(output, target) -> scalar``, on each output of a network with several.

    Args:
        recipe: Its ``loss``, ``loss_options`` and ``vit_weight``.
        prior: (K, K), in the place of the FER+ prior, which only fits the eight FER+ classes.

    Raises:
        RecipeError: The loss does not take the recipe's options.

    Chapters 3 and 6.
    """
    makers = {
        "cross-entropy": nn.CrossEntropyLoss,
        "label-smoothing": ferlib.losses.LabelSmoothingLoss,
        "pdls": ferlib.losses.PDLSLoss,
        "f-pdls": ferlib.losses.FocalPDLSLoss,
        "compensated-f-pdls": ferlib.losses.CompensatedFocalPDLSLoss,
    }
    options = dict(recipe.loss_options)
    if prior is not None and "pdls" in recipe.loss:
        options["prior"] = prior
    try:
        criterion = makers[recipe.loss](**options)
        one = criterion(torch.zeros(2, 8 if prior is None else len(prior)), torch.tensor([0, 1]))
        if one.ndim or not one.isfinite():  # values of a wrong type fail here, not in the first batch
            raise ValueError(f"the loss of two faces is {one.tolist()}")
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"recipe '{recipe.name}': loss_options do not fit {recipe.loss}: {error}"
        ) from error
    return ferlib.losses.BatchTransformerLoss(criterion, vit_weight=recipe.vit_weight)


def build_augment(recipe: Recipe) -> Augment | None:
    """The recipe's augmentation of (B, C, H, W), or None.

    Raises:
        RecipeError: Options that ``ferlib.data.transforms.Augment`` does not have.

    Chapter 6.
    """
    makers = {
        "light": Augment.light,
        "neural-resizer": Augment.neural_resizer,
        "flip-erase": Augment.flip_erase,
    }
    if recipe.augment == "none" and not recipe.augment_options:
        return None
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe.augment_options.items()}
    try:
        return replace(makers[recipe.augment](), **options)
    except (LookupError, TypeError, ValueError) as error:
        known = ", ".join(entry.name for entry in fields(Augment)) if recipe.augment != "none" else "nothing"
        raise RecipeError(
            f"recipe '{recipe.name}': augment_options of {recipe.augment!r}: expected {known} ({error})"
        ) from error


def build_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Adam, AdamW or gradient descent over the trainable weights, inside SAM where the recipe has it.

    Weight decay acts on matrices and kernels only: shrinking a bias or a normalization's scale towards zero
    has no meaning. There are two groups for each learning rate; the recipe's ``lr_scale`` stands in them as
    ``scale``, which :func:`set_lr` heeds.

    Raises:
        RecipeError: ``lr_scale`` names a part that the network does not have.

    Chapter 6.
    """
    groups = []
    rest = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for part, scale in (*recipe.lr_scale.items(), ("", 1.0)):
        inside = [name for name in rest if not part or name.startswith(f"{part}.")]
        if part and not inside:
            raise RecipeError(
                f"recipe '{recipe.name}': lr_scale names {part!r}, no trainable part of {recipe.model}"
            )
        own = [rest.pop(name) for name in inside]
        for some, decay in (
            ([p for p in own if p.ndim > 1], recipe.weight_decay),
            ([p for p in own if p.ndim <= 1], 0.0),
        ):
            groups.append({"params": some, "weight_decay": decay, "scale": scale})
    base = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[recipe.optimizer]
    if recipe.sam_rho is None:
        return base(groups, lr=recipe.lr)
    return SAM(groups, base, rho=recipe.sam_rho, lr=recipe.lr)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its learning rate, ``lr * scale``. Chapter 6."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def build_average(recipe: Recipe, model: nn.Module) -> AveragedModel | None:
    r"""A running average of the weights, or None where the recipe has no ``ema``.

    .. math:: \bar w \leftarrow d_n \bar w + (1 - d_n) w, \qquad d_n = \min(d, (1 + n) / (10 + n))

    after step n: the ramp lets the average forget the random start quickly. Batch statistics are averaged
    too.

    Source: Polyak and Juditsky, 1992. Chapter 6.
    """
    if recipe.ema is None:
        return None

    def mix(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        keep = min(recipe.ema, (1 + int(count)) / (10 + int(count)))
        return average.lerp(current, 1 - keep)

    return AveragedModel(model, avg_fn=mix, use_buffers=True)


def check_network() -> None:
    """Raise at once where timm would try for most of a minute: no network, and no file from before."""
    repository = timm.get_pretrained_cfg(PAPER_BACKBONE).hf_hub_id
    if not try_to_load_from_cache(repository, "model.safetensors"):
        with suppress(HTTPError), urlopen(constants.ENDPOINT, timeout=10):
            pass


def start_from(
    model: nn.Module, recipe: Recipe, folder: str | Path | None = None, *, from_scratch: bool = False
) -> list[str]:
    """Put the recipe's pretrained parts into a fresh network.

    The recipe's ``weights`` name the parts and their files of ``ferlib.weights.PRETRAINED``, which lie in
    ``folder``, by default ``$FERLIB_WEIGHTS`` or ``weights``. A ``backbone`` that is not there is fetched by
    ``timm``. All files are looked for before the first is read.

    Returns:
        A line of text for each part.

    Raises:
        CheckpointError: A file is missing (what to get, where to put it) or does not fit.
        RecipeError: A part or a file that is not known.

    Chapter 6.
    """
    if not recipe.weights:
        return []
    if from_scratch:
        return [f"from random weights; the recipe starts from {', '.join(recipe.weights.values())}"]
    if unknown := [kind for kind in recipe.weights.values() if kind not in PRETRAINED]:
        raise RecipeError(
            f"recipe '{recipe.name}': no weights are called {unknown[0]!r}; known: {', '.join(PRETRAINED)}"
        )
    files = {part: find_pretrained(kind, folder) for part, kind in recipe.weights.items()}
    absent = [recipe.weights[part] for part, file in files.items() if file is None and part != "backbone"]
    if absent:
        words = "; ".join(missing(PRETRAINED[kind], folder) for kind in absent)
        raise CheckpointError(f"{words}; or begin with random weights by --from-scratch")
    if "backbone" in files and files["backbone"] is None:
        try:  # the one file that is fetched: the library, not the recipe, says which
            check_network()
            donor = ResizedTransformer(PAPER_BACKBONE, pretrained=True).backbone
            model.get_submodule("backbone").load_state_dict(donor.state_dict())
        except Exception as error:  # no network, no such file, a full disk, no such part: all have their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            words = missing(PRETRAINED[recipe.weights["backbone"]], folder)
            raise CheckpointError(
                f"{words}; fetching it failed ({reason}); or begin with random weights by --from-scratch"
            ) from error
    load_pretrained(model, {part: file for part, file in files.items() if file})
    return [f"{part}: {file or 'as timm publishes it'}" for part, file in files.items()]
