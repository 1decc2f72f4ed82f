r"""One byte an entry: rows of attention as uint8 codes, and back. The page reads them by the same equations.

Shares of attention span orders of magnitude, so their square roots are rounded, not they themselves:

.. math:: c = \mathrm{round}(254.49 \sqrt{v / m}) \le 254, \qquad \hat v = m\,(c / 254.49)^2

with m the row's maximum, which itself has code 255. That errs by at most m / 255, and by far less for small
shares. Scores, of any sign, are rounded on a line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ferlib.widgets.packing import pack

__all__ = ["Scores", "Shares"]

ROOT = 254.49  # a little less than 254.5: next to the maximum, too, the error stays below 1/255


@dataclass(frozen=True)
class Shares:
    """Rows of numbers that are not negative, one byte each, with the maximum of every row.

    The error is at most 1/255 of the row's maximum; the place of the maximum is kept.

    Shape: ``codes`` (..., K) uint8, ``top`` (...) float32. Chapter 8.
    """

    codes: np.ndarray
    top: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Shares:
        """Encode. Shape: (..., K), entries at least 0."""
        rows = rows.astype(np.float64)
        top = rows.max(-1, keepdims=True)
        share = rows / np.where(top > 0, top, 1)
        codes = np.minimum(254, np.round(ROOT * np.sqrt(share))).astype(np.uint8)
        codes[share > 1 - 1e-6] = 255
        return cls(codes, top[..., 0].astype(np.float32))

    def values(self, index: object = ...) -> np.ndarray:
        """Decode the rows at an index of the leading axes. Shape: float64 (..., K)."""
        codes = self.codes[index]
        share = np.where(codes == 255, 1.0, (codes / ROOT) ** 2)
        return np.asarray(self.top[index], np.float64)[..., None] * share

    def packed(self) -> dict[str, object]:
        """For the page. Shape: a mapping that JSON can hold."""
        return {"codes": pack(self.codes), "top": pack(self.top, "float32")}


@dataclass(frozen=True)
class Scores:
    """Rows of numbers of any sign, one byte each; minus infinity (masked) stays.

    The error is at most 1/508 of the row's range.

    Shape: ``codes`` (..., K) uint8, 0 for masked; ``low`` and ``high`` (...) float32. Chapter 8.
    """

    codes: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Scores:
        """Encode. Shape: (..., K), finite or minus infinity, at least one finite entry a row."""
        rows = rows.astype(np.float64)
        seen = np.isfinite(rows)
        low = np.where(seen, rows, np.inf).min(-1).astype(np.float32)
        high = np.where(seen, rows, -np.inf).max(-1).astype(np.float32)
        span = np.where(high > low, high - low, 1).astype(np.float64)
        share = (np.where(seen, rows, 0) - low[..., None]) / span[..., None]
        codes = np.where(seen, 1 + np.round(254 * np.clip(share, 0, 1)), 0).astype(np.uint8)
        return cls(codes, low, high)

    def values(self, index: object = ...) -> np.ndarray:
        """Decode the rows at an index of the leading axes. Shape: float64 (..., K)."""
        low, high = (np.asarray(x[index], np.float64)[..., None] for x in (self.low, self.high))
        codes = self.codes[index]
        return np.where(codes == 0, -np.inf, low + (high - low) * (codes - 1.0) / 254)

    def packed(self) -> dict[str, object]:
        """For the page. Shape: a mapping that JSON can hold."""
        return {
            "codes": pack(self.codes),
            "low": pack(self.low, "float32"),
            "high": pack(self.high, "float32"),
        }
