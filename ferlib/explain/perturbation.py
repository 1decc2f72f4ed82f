"""Does the answer depend on what a map calls important? Take it away; or show nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from ferlib.explain.answer import answer, chosen, undisturbed
from ferlib.explain.picture import enlarge


def deletion_insertion(
    model: nn.Module,
    images: Tensor,
    heat: Tensor,
    classes: Tensor | None = None,
    *,
    steps: int = 24,
    deleted: str | float = 0.0,
    inserted: str | float = "blur",
    output: str = "vit",
    batch_size: int = 256,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""Area under the class's probability as pixels disappear, and as they appear, the hottest first.

    .. math:: \mathrm{score} = \int_0^1 p_c(x_s)\,ds

    where x_s is the picture after a share s of its pixels was changed.

    Deletion replaces pixels of the picture, insertion puts them on a picture without details. A good map has
    a low deletion and a high insertion. Whether a drop means "this was the evidence" or "such a picture was
    never seen in training" they cannot tell; compare with a random map.

    Parameters
    ----------
    classes: whose probability; None takes the class predicted for the whole picture.
    steps: how many equal shares of the pixels are changed one after the other.
    deleted, inserted: what takes the place of a pixel: a number (after normalisation; 0 is the mean colour of
        ImageNet), or "blur": the picture through a Gaussian of a tenth of its side.
    output: which answer of a Batch Transformer Network; "vit" asks each picture alone.
    seed: pixels of equal heat come in a random order, drawn with this seed, the same for every picture.

    Shape: images (B, 3, H, W), heat (B, h, w), classes (B,) -> ``{"deletion", "insertion"}``, each (B,) in
    [0, 1] by the trapezoidal rule; ``{"deletion_curve", "insertion_curve"}``, each (B, steps + 1); ``share``
    (steps + 1,) of the pixels changed, 0 to 1. The model is afterwards as before. Raises ``ValueError`` for
    shapes that do not fit, for heat that is not finite, for an unknown filling and for no steps.
    Petsiuk, Das and Saenko 2018 (RISE), section 4.2. Chapter 8.
    """
    if heat.ndim != 3 or len(heat) != len(images):
        raise ValueError(f"expected heat (B, h, w) for {len(images)} images, got {tuple(heat.shape)}")
    if not torch.isfinite(heat).all():
        raise ValueError("the map holds NaN or infinity: it cannot be scored")
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected 1 or more")
    place = _order(enlarge(heat.float(), tuple(images.shape[2:])), seed)  # 0: hottest
    share = torch.linspace(0, 1, steps + 1, device=images.device)
    curves = {}
    with undisturbed(model), torch.no_grad():
        classes = _classes(model, images, classes, output, batch_size)
        for name, filling in (("deletion", deleted), ("insertion", inserted)):
            other = _filling(images, filling)
            begin, end = (images, other) if name == "deletion" else (other, images)
            probabilities = []
            for s in share.tolist():
                changed = (place < round(s * place[0].numel()))[:, None]
                now = torch.where(changed, end, begin)
                probabilities.append(_probability(model, now, classes, output, batch_size))
            curves[name] = torch.stack(probabilities, dim=1)
    return {
        **{name: torch.trapezoid(curve, share, dim=1) for name, curve in curves.items()},
        **{f"{name}_curve": curve for name, curve in curves.items()},
        "share": share,
    }


def _order(heat: Tensor, seed: int) -> Tensor:
    """The place of each pixel when sorted from hot to cold: (B, H, W) -> int64 (B, H, W)."""
    flat = heat.flatten(1)
    draw = torch.Generator().manual_seed(seed)
    shuffle = torch.randperm(flat.shape[1], generator=draw).to(flat.device)
    by_heat = shuffle[flat[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    return by_heat.argsort(1).view_as(heat)


def _filling(images: Tensor, filling: str | float) -> Tensor:
    if filling == "blur":
        sigma = max(images.shape[-2:]) / 10
        side = 2 * min(int(2 * sigma), min(images.shape[-2:]) - 1) + 1
        across = gaussian_blur(images, [side, 1], [sigma, sigma])  # a Gaussian, one axis after the other
        return gaussian_blur(across, [1, side], [sigma, sigma])
    if isinstance(filling, str):
        raise ValueError(f"pixels are replaced by a number or by 'blur', got {filling!r}")
    return torch.full_like(images, float(filling))


def _classes(model: nn.Module, images: Tensor, classes: Tensor | None, output: str, size: int) -> Tensor:
    if classes is None:
        return torch.cat([answer(model, part, output).argmax(1) for part in images.split(size)])
    first = answer(model, images[:1], output)
    return chosen(first.expand(len(images), -1), classes)


def _probability(model: nn.Module, images: Tensor, classes: Tensor, output: str, size: int) -> Tensor:
    logits = torch.cat([answer(model, part, output) for part in images.split(size)])
    return logits.float().softmax(1).gather(1, classes[:, None])[:, 0]
