"""Ways to resize one face, wiped against each other, down to their pixels and spectra. Chapter 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        pictures: Method -> picture, or face -> such a mapping; pictures are (H, W), (H, W, 3) or (C, H, W),
            uint8 or floats in [0, 1], all of one size.
        truth: What a perfect resizer would give, of that size, too: it becomes one more method, and each
            method's distance from it is shown (root mean square, gray levels).
        source: The small picture all came from, of any smaller size. With several faces, ``truth`` and
            ``source`` map a face to a picture.
        left: The method shown first on the left.
        right: The method shown first on the right.

    Raises:
        ValueError: For pictures of different sizes, faces with different methods, an unknown method, fewer
            than two methods, or more than 600 kB in all.

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
        pictures: Mapping[str, ArrayLike] | Mapping[str, Mapping[str, ArrayLike]],
        *,
        truth: ArrayLike | Mapping[str, ArrayLike] | None = None,
        source: ArrayLike | Mapping[str, ArrayLike] | None = None,
        left: str | None = None,
        right: str | None = None,
    ) -> None:
        several = any(isinstance(value, Mapping) for value in pictures.values())
        table: dict[str, dict[str, np.ndarray]] = {
            str(face): {str(method): as_image(image, f"picture {method!r}") for method, image in ways.items()}
            for face, ways in (pictures if several else {"face": pictures}).items()
        }
        truths, sources = _by_face(truth, table, "truth"), _by_face(source, table, "source")
        for face, image in truths.items():
            table[face]["the truth"] = image
        methods = list(next(iter(table.values()), {}))
        _check(table, methods)
        chosen = [left or methods[0], right or methods[-2 if truths and len(methods) > 2 else -1]]
        for name in chosen:
            if name not in methods:
                raise ValueError(f"{name!r} is none of the methods {', '.join(methods)}")
        spectra = {
            face: {m: radial_spectrum(image) for m, image in ways.items()} for face, ways in table.items()
        }
        values = np.array([spectrum for ways in spectra.values() for spectrum in ways.values()])
        faces = []
        for face, ways in table.items():
            images = []
            for method, image in ways.items():
                code = {"image": pack(image), "spectrum": pack(spectra[face][method], "float16")}
                known = face in truths and method != "the truth"
                images.append(code | {"error": _distance(image, truths[face]) if known else None})
            source = {"image": pack(sources[face])} if face in sources else None
            faces.append({"name": face, "source": source, "images": images})
        width = next(iter(next(iter(table.values())).values())).shape[1]
        small = next(iter(sources.values())).shape[1] if sources else 0
        top = float(np.ceil(values.max()))
        data = {
            "methods": methods,
            "faces": faces,
            "nyquist": 0.5 * small / width if 0 < small < width else None,
            "range": [max(float(np.floor(values.min())), top - 10), top],
        }
        self._first = list(next(iter(table.values())).values())
        super().__init__(data, left=methods.index(chosen[0]), right=methods.index(chosen[1]))

    def fallback(self) -> str:
        """All methods on the first face as one picture."""
        words = "One face resized in several ways: " + ", ".join(self.data["methods"])
        return picture(self._first, words)


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


def _by_face(value: Any, table: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """A picture, or a mapping of pictures by face, as a mapping for every face of the table."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        value = dict.fromkeys(list(table)[:1], value)
    if set(map(str, value)) != set(table):
        raise ValueError(f"{name} is for {sorted(map(str, value))}, expected one for each of {sorted(table)}")
    return {str(face): as_image(image, name) for face, image in value.items()}


def _check(table: Mapping[str, Mapping[str, np.ndarray]], methods: list[str]) -> None:
    if len(methods) < 2 or any(list(ways) != methods for ways in table.values()):
        found = {face: list(ways) for face, ways in table.items()}
        raise ValueError(f"every face has the same methods, two at least; got {found}")
    sizes = {image.shape[:2] for ways in table.values() for image in ways.values()}
    if len(sizes) > 1 or min(min(sizes)) < 8:
        raise ValueError(f"all pictures have one size (H, W) of at least 8 pixels, got {sorted(sizes)}")
