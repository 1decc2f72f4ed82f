"""Making small faces larger before the Neural Resizer sees them: a named step with a place for learned
networks.

The Neural Resizer takes 384 px; FER+ faces have 48. Its authors enlarge them eight times with a network, DIC.
It stands here in one table, ``METHODS``, with the interpolations, as an address that is imported when it is
asked for; another network joins by :func:`register`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ferlib.data.base import DataError
from ferlib.data.images import to_planes

#: Enlarges uint8 faces ``(B, C, H, W)`` by a whole factor to uint8 ``(B, C, factor * H, factor * W)``.
Upscaler = Callable[[torch.Tensor, int], torch.Tensor]
#: Makes an upscaler from a weights file (None where the method needs none). The upscaler may tell what it can
#: do: ``scales`` (a tuple of factors), ``channels`` of what it gives, ``at_once`` (faces worth a piece of
#: their own when a data set is prepared, for slow methods).
UpscalerFactory = Callable[[Path | None], Upscaler]


def _interpolation(resample: Image.Resampling) -> UpscalerFactory:
    def one(planes: np.ndarray, scale: int) -> np.ndarray:
        image = Image.fromarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0))
        return to_planes(np.array(image.resize((image.width * scale, image.height * scale), resample)))

    def upscaler(images: torch.Tensor, scale: int) -> torch.Tensor:
        return torch.from_numpy(np.stack([one(planes, scale) for planes in images.numpy()]))

    def factory(weights: Path | None) -> Upscaler:
        if weights is not None:
            raise DataError(f"{weights}: interpolation takes no weights; leave --weights out")
        return upscaler

    return factory


#: Name -> factory or its address: four interpolations of Pillow, DIC, and what :func:`register` added.
METHODS: dict[str, UpscalerFactory | str] = {
    "nearest": _interpolation(Image.Resampling.NEAREST),
    "bilinear": _interpolation(Image.Resampling.BILINEAR),
    "bicubic": _interpolation(Image.Resampling.BICUBIC),
    "lanczos": _interpolation(Image.Resampling.LANCZOS),
    "dic": "ferlib.weights:dic_upscaler",
}


def register(name: str, factory: UpscalerFactory | str) -> None:
    """Add a super-resolution method, for instance a learned network, under a name.

    ``factory(weights)`` gets the path of a weights file or None and returns a function of ``(images,
    scale)``; it raises ValueError where it needs weights and has none, or cannot do a scale. An address
    ``"package.module:factory"`` is imported when the method is first used.

    Shape: the function maps uint8 ``(B, C, H, W)`` to uint8 ``(B, C, scale * H, scale * W)``, or to as many
    channels as its attribute ``channels`` says.

    Raises
    ------
    DataError: the name is taken.

    Chapters 1 and 2.
    """
    if name in METHODS:
        raise DataError(f"super-resolution method {name!r} is already registered")
    METHODS[name] = factory


def make_upscaler(
    method: str, scale: int, weights: str | Path | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that enlarges faces by a fixed factor with a named method.

    Shape: the function maps uint8 ``(B, C, H, W)`` to uint8 ``(B, C, scale * H, scale * W)``; its attribute
    ``channels`` is the number of channels it gives, or None for as many as it gets (DIC gives RGB).

    Raises
    ------
    DataError: unknown method (the message lists the known ones), a factor outside 1..16 or that the method
    does not do, weights that are not there, needed, or another network's.

    Source: Neural Resizer, section on super-resolved input. Chapters 1 and 2.
    """
    if method not in METHODS:
        raise DataError(
            f"super-resolution method {method!r} is not known; choose one of {', '.join(sorted(METHODS))}. "
            "A learned network becomes a method through ferlib.data.superresolution.register"
        )
    if scale != int(scale) or not 1 <= scale <= 16:
        raise DataError(f"cannot enlarge {scale} times; expected a whole number from 1 to 16")
    path = None if weights is None else Path(weights)
    if path is not None and not path.is_file():
        raise DataError(f"{path}: the weights file is not there")
    upscaler = _make(method, path)
    scales = getattr(upscaler, "scales", (scale,))
    if scale not in scales:
        only = " or ".join(map(str, scales))
        raise DataError(f"method {method!r} enlarges {only} times, not {scale}; give --upscale {only}")
    channels = getattr(upscaler, "channels", None)

    def run(images: torch.Tensor) -> torch.Tensor:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise DataError(f"expected uint8 (B, C, H, W), found {images.dtype} {tuple(images.shape)}")
        try:
            large = upscaler(images, int(scale))
        except ValueError as error:  # another floor's kind of error about the faces given
            raise (
                error if isinstance(error, DataError) else DataError(f"method {method!r}: {error}")
            ) from None
        size = (images.shape[2] * int(scale), images.shape[3] * int(scale))
        expected = (len(images), channels or images.shape[1], *size)
        if large.dtype != torch.uint8 or tuple(large.shape) != expected:
            raise DataError(
                f"method {method!r} gave {large.dtype} {tuple(large.shape)}; expected uint8 {expected}"
            )
        return large

    run.channels, run.at_once = channels, getattr(upscaler, "at_once", None)
    return run


def _make(method: str, weights: Path | None) -> Upscaler:
    factory = METHODS[method]
    try:
        if isinstance(factory, str):
            module, _, name = factory.partition(":")
            factory = getattr(import_module(module), name)
        return factory(weights)
    except ValueError as error:  # networks know nothing of data sets and have errors of their own
        raise error if isinstance(error, DataError) else DataError(str(error)) from None


def upscale(images: torch.Tensor, scale: int, method: str = "bicubic") -> torch.Tensor:
    """Enlarge faces once by a method without weights: ``make_upscaler(method, scale)(images)``.

    Shape: uint8 ``(B, C, H, W)`` -> uint8 ``(B, C, scale * H, scale * W)``. Raises DataError as
    :func:`make_upscaler`. Chapter 1.
    """
    return make_upscaler(method, scale)(images)
