"""Draw the contact sheet: eight expressions down, twelve people across.

    python -m book.experiments.contact_sheet [--size 96] [--seed 3] [--out book/static/contact_sheet.webp]

Every column is one person. Drawn faces only, so the picture may be shown anywhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from ferlib.data import EMOTIONS_FERPLUS, SyntheticFaces

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = 12


def sheet(size: int, seed: int, gap: int = 3, label: int = 130) -> Image.Image:
    """The sheet as an RGBA picture with a transparent ground."""
    step = size + gap
    picture = Image.new("RGBA", (label + PEOPLE * step, 8 * step), (255, 255, 255, 0))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(22)
    for row, name in enumerate(EMOTIONS_FERPLUS):
        faces = SyntheticFaces(PEOPLE, size, seed, channels=3, expression=name)
        images = faces.batch(torch.arange(PEOPLE))["image"].permute(0, 2, 3, 1).numpy()
        place = (label - 10, row * step + size / 2)
        draw.text(place, name, fill=(122, 122, 122, 255), font=font, anchor="rm")
        for column, image in enumerate(images):
            picture.paste(Image.fromarray(image), (label + column * step, row * step))
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=96, help="pixels of one face")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "book" / "static" / "contact_sheet.webp")
    options = parser.parse_args()
    sheet(options.size, options.seed).save(options.out, quality=88, method=6)
    print(f"{options.out} written: {options.out.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
