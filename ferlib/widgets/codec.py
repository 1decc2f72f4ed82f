r"""Arrays as text: from a recorder to a record, and from there to the page, where ``static/`` reads them.

Rows of attention are coded once, on their way into the record, and never again. A share of attention may be
orders of magnitude below another, so square roots are rounded, one byte each:

.. math:: c = \mathrm{round}(254.49 \sqrt{v / m}) \le 254, \qquad \hat v = m\,(c / 254.49)^2

with m the row's maximum, which itself has code 255. The error is at most m / 255, and far less for small
shares; the place of the maximum is kept.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ferlib.style import as_array

__all__ = ["pack", "pack_maps", "pack_rows", "unpack"]

ROOT = 254.49  # a little less than 254.5: next to the maximum, too, the error stays below 1/255


def pack(array: ArrayLike, dtype: str = "uint8") -> dict[str, Any]:
    """An array of any shape as JSON: type, shape, and bytes in base64, deflated where that helps.

    Args:
        array: Values that fit into the type.
        dtype: "uint8", "float32", or "float16", which needs half as much and keeps three digits.

    Raises:
        ValueError: For another type, or a value too large for it.
    """
    if dtype not in ("uint8", "float16", "float32"):
        raise ValueError(f"dtype is uint8, float16 or float32, got {dtype!r}")
    values = as_array(array, "array")
    with np.errstate(over="ignore"):
        packed = np.ascontiguousarray(values.astype(np.dtype(dtype).newbyteorder("<")))
    if not np.isfinite(packed).all():
        raise ValueError(f"a value as large as {np.abs(values).max():.4g} does not fit into {dtype}")
    raw = packed.tobytes()
    small = zlib.compress(raw, 9)
    deflated = len(small) < 0.9 * len(raw)
    return {
        "type": dtype,
        "shape": list(values.shape),
        "deflated": deflated,
        "data": base64.b64encode(small if deflated else raw).decode("ascii"),
    }


def pack_rows(rows: ArrayLike) -> dict[str, Any]:
    """Rows (..., K) of numbers that are not negative: a byte each, and the maximum of every row."""
    rows = as_array(rows, "rows").astype(np.float64)
    top = rows.max(-1, keepdims=True)
    share = rows / np.where(top > 0, top, 1)
    codes = np.minimum(254, np.round(ROOT * np.sqrt(share)))
    codes[share > 1 - 1e-6] = 255
    return {"codes": pack(codes), "top": pack(top[..., 0], "float32")}


def pack_maps(maps: ArrayLike) -> dict[str, Any]:
    """Heat maps (F, h, w), one a face, as an :class:`~ferlib.widgets.AttentionExplorer` shows them.

    Negative heat counts as none.
    """
    maps = as_array(maps, "maps", 3).clip(0)
    return {"size": list(maps.shape[1:]), **pack_rows(maps.reshape(len(maps), -1))}


def unpack(packed: Mapping[str, Any]) -> np.ndarray:
    """What :func:`pack`, :func:`pack_rows` or :func:`pack_maps` packed: an array of any shape."""
    if "codes" not in packed:
        raw = base64.b64decode(packed["data"])
        raw = zlib.decompress(raw) if packed["deflated"] else raw
        return np.frombuffer(bytearray(raw), np.dtype(packed["type"]).newbyteorder("<")).reshape(
            packed["shape"]
        )
    codes, top = unpack(packed["codes"]), unpack(packed["top"]).astype(np.float64)
    rows = top[..., None] * np.where(codes == 255, 1.0, (codes / ROOT) ** 2)
    return rows.reshape(-1, *packed["size"]) if "size" in packed else rows
