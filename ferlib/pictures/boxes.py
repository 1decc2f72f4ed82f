"""The square around a face."""

from __future__ import annotations

from dataclasses import dataclass

from ferlib.data.base import DataError


@dataclass(frozen=True)
class Box:
    """A square of a picture, in pixels from its top left corner; it may stick out of the picture.

    Shape: three numbers: left, top, side > 0.
    """

    left: float
    top: float
    side: float

    @classmethod
    def parse(cls, text: str) -> Box:
        """``"x,y,w,h"`` as typed; what is not square becomes the square of its longer side, same centre.

        Shape: text -> :class:`Box`. Raises ``DataError`` for anything else.
        """
        try:
            x, y, width, height = (float(word) for word in text.split(","))
        except ValueError:
            raise DataError(f"--box {text}: expected four numbers x,y,w,h such as 40,60,120,120") from None
        if not (min(width, height) >= 1 and max(map(abs, (x, y, width, height))) < 1e6):
            raise DataError(f"--box {text}: expected a width and height of at least 1 pixel")
        side = max(width, height)
        return cls(x + (width - side) / 2, y + (height - side) / 2, side)

    @classmethod
    def middle(cls, width: int, height: int) -> Box:
        """The largest square in the middle of a picture. Shape: two sizes -> :class:`Box`."""
        side = min(width, height)
        return cls((width - side) // 2, (height - side) // 2, side)

    def overlap(self, other: Box) -> float:
        """Shared area over joint area, 0 to 1. Shape: two boxes -> a number."""
        return self._shared(other) / (self.side**2 + other.side**2 - self._shared(other))

    def covered(self, other: Box) -> float:
        """The share of this box that lies in the other. Shape: two boxes -> a number."""
        return self._shared(other) / self.side**2

    def meets(self, width: int, height: int) -> bool:
        """Whether any of it lies in a picture of this size. Shape: two sizes -> a truth value."""
        across = self.left < width and self.left + self.side > 0
        return across and self.top < height and self.top + self.side > 0

    def _shared(self, other: Box) -> float:
        across = min(self.left + self.side, other.left + other.side) - max(self.left, other.left)
        down = min(self.top + self.side, other.top + other.side) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)
