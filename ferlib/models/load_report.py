"""What happened when an original file was put under our names: a report that a person can read."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

Shape = tuple[int, ...]


@dataclass
class LoadReport:
    """Every name of the file and of the network, and what became of it.

    matched: our names that got a tensor of the file, in our order.
    missing: names the network needs and the file lacks, with the shape they should have.
    unexpected: names of the file that found no place, with their shapes.
    misshaped: names with the shape found and the shape expected.
    set_aside: names of the file that are known not to touch the output, or that a mapping drops.
    at_start: our names that were not asked of the file; the network keeps its start values there.
    inert: classes that were met in the file and not run (recorder objects of training programs).

    ``complete`` is True where nothing is missing, unexpected or of another shape; where only a ``part`` was
    asked for, what the file holds besides is reported and does not count. ``str()`` is the whole
    report, names in groups, each with its shape. Shape: names and shapes; no arrays. Chapter 6.
    """

    architecture: str
    part: str | None = None
    matched: list[str] = field(default_factory=list)
    missing: dict[str, Shape] = field(default_factory=dict)
    unexpected: dict[str, Shape] = field(default_factory=dict)
    misshaped: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    set_aside: list[str] = field(default_factory=list)
    at_start: list[str] = field(default_factory=list)
    inert: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not (self.missing or self.misshaped or (self.unexpected and self.part is None))

    def __str__(self) -> str:
        whole = f"the part {self.part!r} is whole" if self.part else "everything has its place"
        verdict = whole if self.complete else "does not fit"
        lines = [f"{self.architecture}: {len(self.matched)} tensors matched, {verdict}"]
        for title, found in (
            ("missing in the file", self.missing),
            ("in the file, without a place here", self.unexpected),
        ):
            if found:
                lines += [f"  {title} ({len(found)}):", *_table(found)]
        if self.misshaped:
            lines.append(f"  of another shape ({len(self.misshaped)}):")
            shapes = {n: f"{_shape(a)}, expected {_shape(b)}" for n, (a, b) in self.misshaped.items()}
            lines += _table(shapes)
        for title, names in (
            ("set aside, they do not touch the output", self.set_aside),
            ("not from the file, they keep their start values", self.at_start),
            ("classes in the file that were not run", self.inert),
        ):
            if names:
                text = f"{title} ({len(names)}): " + ", ".join(_groups(names))
                lines += textwrap.wrap(
                    text, 100, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
                )
        return "\n".join(lines)


def _shape(shape: Shape | str) -> str:
    if isinstance(shape, str):
        return shape
    return " x ".join(map(str, shape)) if shape else "one number"


def _table(found: Mapping[str, Shape | str]) -> list[str]:
    width = max(len(name) for name in found)
    return [f"    {name:<{width}}  {_shape(shape)}" for name, shape in found.items()]


def _groups(names: list[str]) -> list[str]:
    """Names that begin alike as one: "output_layer.* (5)"."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(name.split(".")[:2]) if "." in name else name, []).append(name)
    return [
        members[0] if len(members) == 1 else f"{group}.* ({len(members)})"
        for group, members in groups.items()
    ]
