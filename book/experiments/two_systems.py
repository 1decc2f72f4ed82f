"""The picture of both systems on the front page: two small SVG files, every shape computed by the library.

    python -m book.experiments.two_systems

The networks are built on PyTorch's meta device, an imaginary face is sent through, and each part notes what
leaves it. Writes ``book/static/neural_resizer.svg`` and ``book/static/batch_transformer.svg``. Boxes bring
their own ground and dark ink, and lines are mid-grey, so one file serves light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ferlib.models import BatchTransformerNetwork, ResizedTransformer

STATIC = Path(__file__).resolve().parents[1] / "static"
WIDTH, HEIGHT, GAP, SPACE = 340, 54, 22, 14  # of the picture, of a box, between rows, between boxes
PLAIN, QUERIES, KEYS, DECIDES = "#e9e9e9", "#d3e6f4", "#fbe7bf", "#cdebdf"
LINE, INK = "#808080", "#1f1f1f"


class Part(NamedTuple):
    """One box: its name, what leaves it, its ground; dashed where it is a reconstruction."""

    name: str
    leaves: str
    ground: str = PLAIN
    dashed: bool = False


def shapes_of(model: nn.Module, size: int, *names: str) -> dict[str, list[tuple[int, ...]]]:
    """What leaves the named modules for one picture (1, 3, size, size), without the batch dimension."""
    found: dict[str, list[tuple[int, ...]]] = {}

    def note(name: str) -> None:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            parts = output if isinstance(output, tuple | list) else (output,)
            found[name] = [tuple(part.shape[1:]) for part in parts]

        model.get_submodule(name).register_forward_hook(hook)

    for name in names:
        note(name)
    model.eval()(torch.empty(1, 3, size, size, device="meta"))
    return found


def times(*sizes: object) -> str:
    """A shape as text."""
    return " × ".join(map(str, sizes))


def neural_resizer() -> list[list[Part]]:
    """The rows of the first system."""
    with torch.device("meta"):
        model = ResizedTransformer()
    size, scale = 384, 8
    seen = shapes_of(model, size, "spatial_transformer", "resizer", "backbone", "head")
    return [
        [Part("a small face", times(3, size // scale, size // scale))],
        [Part(f"super-resolution, {scale} times larger", times(3, size, size))],
        [Part("spatial transformer straightens it", times(*seen["spatial_transformer"][0]))],
        [Part("Neural Resizer learns to reduce it", times(*seen["resizer"][0]), DECIDES)],
        [Part("a pretrained transformer, Swin-B", f"{seen['backbone'][0][-1]} features")],
        [Part("head", f"{seen['head'][0][0]} logits")],
        [Part("F-PDLS, the loss", "knows which expressions people confuse", DECIDES)],
    ]


def batch_transformer() -> list[list[Part]]:
    """The rows of the second system."""
    with torch.device("meta"):
        model = BatchTransformerNetwork()
    size, fusion = 224, [f"encoder.fusion.{n}" for n in range(3)]
    seen = shapes_of(model, size, "encoder", *fusion, "levels", "vit", "batch_transformer")
    cells = ", ".join(str(seen[name][0][0]) for name in fusion)
    together = times("B", *seen["encoder"][0])
    tokens, maps = seen["levels"][:2]
    classes = seen["vit"][0][0]
    return [
        [Part("a batch of B faces", times("B", 3, size, size))],
        [Part("landmark branch", "query", QUERIES), Part("face branch", "key and value", KEYS)],
        [Part("cross-attention on three levels", f"maps {cells} wide, then {together}")],
        [Part("multi-level attention (reconstructed)", times("B", *tokens), PLAIN, True)],
        [
            Part("transformer", f"value {times('B', classes)}"),
            Part("query, key maps", times("B", *maps), PLAIN, True),
        ],
        [Part("batch transformer", f"images attend to images: {classes} maps B × B", DECIDES)],
        [Part("three outputs, three losses", f"VIT, CBA, BT: each {times('B', classes)}", DECIDES)],
    ]


def svg(title: str, rows: Sequence[Sequence[Part]]) -> str:
    """Rows of boxes, joined by arrows from each row to the next."""
    tall = len(rows) * (HEIGHT + GAP) - GAP + 4
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" width="{WIDTH}" '
        f'height="{tall}" role="img" font-family="system-ui, Arial, sans-serif" text-anchor="middle">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{LINE}"/></marker></defs>',
    ]
    above: list[float] = []
    for number, row in enumerate(rows):
        top = 2 + number * (HEIGHT + GAP)
        wide = (WIDTH - 4 - SPACE * (len(row) - 1)) / len(row)
        middles = [2 + wide / 2 + n * (wide + SPACE) for n in range(len(row))]
        for start in above:
            ends = middles if len(above) == 1 or len(row) == 1 else [start]
            drawn += [
                f'<path d="M{start if len(row) == 1 else end:g} {top - GAP} V{top - 1}" stroke="{LINE}" '
                'stroke-width="1.6" marker-end="url(#tip)"/>'
                for end in ends
            ]
        for part, middle in zip(row, middles, strict=True):
            dash = ' stroke-dasharray="5 4"' if part.dashed else ""
            drawn += [
                f'<rect x="{middle - wide / 2:g}" y="{top}" width="{wide:g}" height="{HEIGHT}" rx="7" '
                f'fill="{part.ground}" stroke="{LINE}" stroke-width="1.2"{dash}/>',
                f'<text x="{middle:g}" y="{top + 23}" font-size="14" font-weight="600" fill="{INK}">'
                f"{escape(part.name)}</text>",
                f'<text x="{middle:g}" y="{top + 42}" font-size="13" fill="{INK}">'
                f"{escape(part.leaves)}</text>",
            ]
        above = middles
    return "\n".join([*drawn, "</svg>"]) + "\n"


def pictures() -> dict[str, str]:
    """Both files: name -> text."""
    return {
        "neural_resizer.svg": svg("Vision Transformer with Neural Resizer", neural_resizer()),
        "batch_transformer.svg": svg("Batch Transformer Network", batch_transformer()),
    }


def main() -> None:
    for name, text in pictures().items():
        (STATIC / name).write_text(text, encoding="utf-8")
        print(STATIC / name)


if __name__ == "__main__":
    main()
