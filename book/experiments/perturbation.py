"""Does a network's output depend on what a map calls important? Remove it; or show nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from ferlib.explain import output_logits
from ferlib.explain.cam import enlarge
from ferlib.explain.recorder import undisturbed


def deletion_insertion(
    model: nn.Module, images: Tensor, heat: Tensor, classes: Tensor, *, steps: int = 24, seed: int = 0
) -> dict[str, Tensor]:
    r"""Area under the class's probability as pixels disappear, and as they appear, the hottest first.

    .. math:: \mathrm{score} = \int_0^1 p_c(x_s)\,ds

    where x_s is the picture after a share s of its pixels was changed. Deletion replaces pixels of the
    picture by the mean color (0 after normalization); insertion puts them on the picture through a Gaussian
    of a tenth of its side. A good map has a low deletion and a high insertion. Whether a drop means "this was
    the evidence" or "such a picture was never seen in training" they cannot tell apart; compare with a random
    map. Source: Petsiuk, Das and Saenko 2018 (RISE), section 4.2.

    Args:
        model: The network; of a Batch Transformer Network the output "vit" is taken.
        images: (B, 3, H, W).
        heat: (B, h, w).
        classes: (B,).
        steps: How many equal shares of the pixels are changed one after the other.
        seed: Of the order of pixels of equal heat, the same for every picture.

    Returns:
        "deletion" and "insertion", each (B,) in [0, 1] by the trapezoidal rule, and their curves
        "deletion_curve" and "insertion_curve", each (B, steps + 1).
    """
    place = _order(enlarge(heat.float(), tuple(images.shape[2:])), seed)  # 0: hottest
    sigma = max(images.shape[-2:]) / 10
    side = 2 * min(int(2 * sigma), min(images.shape[-2:]) - 1) + 1
    across = gaussian_blur(images, [side, 1], [sigma, sigma])  # a Gaussian, one axis after the other
    blurred = gaussian_blur(across, [1, side], [sigma, sigma])
    ends = {"deletion": (images, torch.zeros_like(images)), "insertion": (blurred, images)}
    share, found = torch.linspace(0, 1, steps + 1), {}
    with undisturbed(model), torch.no_grad():
        for name, (begin, end) in ends.items():
            curve = []
            for s in share.tolist():
                changed = (place < round(s * place[0].numel()))[:, None]
                logits = output_logits(model, torch.where(changed, end, begin))
                curve.append(logits.float().softmax(1).gather(1, classes[:, None])[:, 0])
            found[f"{name}_curve"] = torch.stack(curve, dim=1)
            found[name] = torch.trapezoid(found[f"{name}_curve"], share, dim=1)
    return found


def _order(heat: Tensor, seed: int) -> Tensor:
    """The place of each pixel (B, H, W) when sorted from hot to cold."""
    flat = heat.flatten(1)
    shuffle = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(seed))
    by_heat = shuffle[flat[:, shuffle].argsort(dim=1, descending=True, stable=True)]
    return by_heat.argsort(1).view_as(heat)
