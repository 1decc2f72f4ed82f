"""A picture with its faces framed and bars beside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ferlib.pictures.boxes import Box
from ferlib.pictures.classifier import Answer
from ferlib.style import EMOTION_COLOURS, INK

LARGEST = 1600  # pixels of the longer side of what is drawn
ROW, BAR, MARGIN = 22, 120, 14


def draw_answers(picture: NDArray[np.uint8], faces: list[tuple[Box, Answer]]) -> Image.Image:
    """The picture with a numbered box around each face and, at its right, all probabilities as bars.

    Shape: (3, H, W) uint8 and N faces -> an RGB image, at most 1,600 pixels of picture a side.
    """
    image = Image.fromarray(np.moveaxis(picture, 0, 2))
    shrink = min(1.0, LARGEST / max(image.size))
    if shrink < 1:
        image = image.resize((max(1, round(image.width * shrink)), max(1, round(image.height * shrink))))
    rows = sum(len(answer.classes) + 2 for _, answer in faces)
    width = 110 + BAR + 60 + 2 * MARGIN if faces else 0
    sheet = Image.new("RGB", (image.width + width, max(image.height, rows * ROW + MARGIN)), "white")
    sheet.paste(image, (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    y = MARGIN
    for number, (box, answer) in enumerate(faces, 1):
        colour = EMOTION_COLOURS.get(answer.expression, INK)
        ends = [c * shrink for c in (box.left, box.top, box.left + box.side, box.top + box.side)]
        draw.rectangle(ends, outline="white", width=5)
        draw.rectangle(ends, outline=colour, width=3)
        draw.rectangle((ends[0], ends[1], ends[0] + 22, ends[1] + 20), fill="white")
        draw.text((ends[0] + 6, ends[1] + 1), str(number), fill=INK, font=font)
        x = image.width + MARGIN
        draw.text((x, y), f"{number}  {answer.expression}", fill=INK, font=font)
        for name, share in zip(answer.classes, answer.probabilities, strict=True):
            y += ROW
            draw.text((x, y), name, fill=INK, font=font)
            end = x + 90 + BAR * float(share)
            draw.rectangle((x + 90, y + 3, x + 90 + BAR, y + 15), fill="#eceef1")
            draw.rectangle((x + 90, y + 3, end, y + 15), fill=EMOTION_COLOURS.get(name, INK))
            draw.text((x + 98 + BAR, y), f"{100 * float(share):.0f} %", fill=INK, font=font)
        y += 2 * ROW
    return sheet
