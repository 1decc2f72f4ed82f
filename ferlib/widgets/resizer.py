"""Ways to resize one face, wiped against each other, down to their pixels and spectra. Chapter 2."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import traitlets
from numpy.typing import ArrayLike

from ferlib.style import as_image
from ferlib.widgets.base import Explorer, module, picture
from ferlib.widgets.codec import pack

__all__ = ["ResizerExplorer", "radial_spectrum"]

VIEWS = ("left only", "wipe", "right only", "difference")
BANDS = 56  # points of a spectrum: enough to see every step of a resizer, 112 bytes a picture


class ResizerExplorer(Explorer):
    r"""One face resized in several ways: wipe, flip, difference, a lens on the pixels, the spectra.

    The reader chooses two methods and drags the divider between them; the lens follows pointer or arrow keys
    and shows pixels as squares. The spectrum of a picture is the mean of :math:`|\mathrm{DFT}|^2` on rings of
    equal frequency (:func:`radial_spectrum`). The traits ``face``, ``left``, ``right``, ``view``, ``split``
    and ``lens`` follow the reader's hand when a kernel is there. Chapter 2.

    Args:
        pictures: Method -> picture (H, W), (H, W, 3) or (C, H, W), uint8 or floats in [0, 1], all of one
            size.
        truth: What a perfect resizer would give, of that size, too: it becomes one more method, and each
            method's distance from it is shown (root mean square, gray levels).
        source: The small picture all came from, of any smaller size.
        left: The method shown first on the left.
        right: The method shown first on the right.

    Raises:
        ValueError: For pictures of different sizes, an unknown method, fewer than two methods, or more than
            600 kB in all.

    Example::

        from ferlib.widgets import ResizerExplorer

        ResizerExplorer({"nearest": a, "bicubic": b, "learned": c}, truth=t, source=small)   # ends a cell
    """

    _source = module("resizer.js")
    face = traitlets.Int(0).tag(sync=True)
    left = traitlets.Int(0).tag(sync=True)
    right = traitlets.Int(1).tag(sync=True)
    view = traitlets.Enum(VIEWS, "wipe").tag(sync=True)
    split = traitlets.Float(0.5, min=0, max=1).tag(sync=True)
    lens = traitlets.List(traitlets.Float(), [0.34, 0.4]).tag(sync=True)

    def __init__(
        self,
        pictures: Mapping[str, ArrayLike],
        *,
        truth: ArrayLike | None = None,
        source: ArrayLike | None = None,
        left: str | None = None,
        right: str | None = None,
    ) -> None:
        table = {str(name): as_image(image, f"picture {name!r}") for name, image in pictures.items()}
        if truth is not None:
            table["the truth"] = as_image(truth, "truth")
        methods, sizes = list(table), {image.shape[:2] for image in table.values()}
        if len(methods) < 2 or len(sizes) > 1 or min(min(sizes)) < 8:
            raise ValueError(
                f"expected two methods or more and pictures of one size of at least 8 pixels, got {methods} "
                f"of {sorted(sizes)}"
            )
        chosen = [left or methods[0], right or methods[-2 if truth is not None and len(methods) > 2 else -1]]
        for name in chosen:
            if name not in methods:
                raise ValueError(f"{name!r} is none of the methods {', '.join(methods)}")
        spectra = {name: radial_spectrum(image) for name, image in table.items()}
        images = []
        for name, image in table.items():
            known = truth is not None and name != "the truth"
            error = _distance(image, table["the truth"]) if known else None
            spectrum = pack(spectra[name], "float16")
            images.append({"image": pack(image), "spectrum": spectrum, "error": error})
        width, finest, shown = table[methods[0]].shape[1], 0, None
        if source is not None:
            small = as_image(source, "source")
            finest, shown = small.shape[1], {"image": pack(small)}
        values = np.array(list(spectra.values()))
        top = float(np.ceil(values.max()))
        data = {
            "methods": methods,
            "faces": [{"name": "face", "source": shown, "images": images}],
            "nyquist": 0.5 * finest / width if 0 < finest < width else None,
            "range": [max(float(np.floor(values.min())), top - 10), top],
        }
        self._pictures = list(table.values())
        super().__init__(data, left=methods.index(chosen[0]), right=methods.index(chosen[1]))

    def fallback(self) -> str:
        """All methods as one picture."""
        words = "One face resized in several ways: " + ", ".join(self.data["methods"])
        return picture(self._pictures, words)


def radial_spectrum(image: ArrayLike) -> np.ndarray:
    r"""How much a picture changes at each frequency: log10 of the mean power on rings of equal frequency.

    .. math:: S(f) = \log_{10}\, \mathrm{mean}_{|u| \in \mathrm{ring} f} |\mathrm{DFT}(g - \bar g)(u)|^2 / HW

    with g the gray picture in [0, 1]; a Hann window keeps its borders from counting as edges. Chapter 2.

    Args:
        image: (H, W) or (H, W, 3).

    Returns:
        (bands,), a band for every two pixels of the shorter side, 56 at most: with more, some rings of a
        small picture would be empty. Band k covers (k ... k + 1) / (2 bands) cycles per pixel. A band with no
        power at all is given -12.
    """
    gray = as_image(image, "image").astype(np.float64) / 255
    gray = gray.mean(2) if gray.ndim == 3 else gray
    height, width = gray.shape
    bands = min(BANDS, min(height, width) // 2)
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.fft2((gray - gray.mean()) * window)) ** 2 / gray.size
    distance = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    ring = np.floor(distance * 2 * bands).astype(int)
    inside = ring < bands
    total = np.bincount(ring[inside], power[inside], bands)
    cells = np.bincount(ring[inside], minlength=bands)
    return np.log10(np.maximum(total / np.maximum(cells, 1), 1e-12))


def _distance(image: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square difference in gray levels."""
    a, b = (np.atleast_3d(x).astype(np.float64) for x in (image, truth))
    return float(np.sqrt(((a - b) ** 2).mean()))
