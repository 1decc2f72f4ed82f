"""Draw the contact sheet: eight expressions down, twelve people across.

    python -m book.experiments.contact_sheet

Every column is one person. Drawn faces only, so the picture may be shown anywhere.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from ferlib.data import EMOTIONS_FERPLUS, SyntheticFaces

PLACE = Path(__file__).resolve().parents[1] / "static" / "contact_sheet.webp"
PEOPLE, SIZE, SEED = 12, 96, 3  # pixels of one face; of the people
GAP, LABEL = 3, 130  # pixels between faces; of an expression's name


def sheet() -> Image.Image:
    """The sheet as an RGBA picture with a transparent ground."""
    step = SIZE + GAP
    picture = Image.new("RGBA", (LABEL + PEOPLE * step, 8 * step), (255, 255, 255, 0))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(22)
    for row, name in enumerate(EMOTIONS_FERPLUS):
        faces = SyntheticFaces(PEOPLE, SIZE, SEED, channels=3, expression=name)
        images = faces.batch(torch.arange(PEOPLE))["image"].permute(0, 2, 3, 1).numpy()
        place = (LABEL - 10, row * step + SIZE / 2)
        draw.text(place, name, fill=(122, 122, 122, 255), font=font, anchor="rm")
        for column, image in enumerate(images):
            picture.paste(Image.fromarray(image), (LABEL + column * step, row * step))
    return picture


if __name__ == "__main__":
    sheet().save(PLACE, quality=88, method=6)
    print(f"{PLACE} written: {PLACE.stat().st_size / 1024:.0f} kB")
