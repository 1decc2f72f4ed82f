"""Read the expressions in pictures of your own with the model that comes with ferlib.

  ferlib predict holiday.jpg
  ferlib predict *.jpg --json
  ferlib predict holiday.jpg --out drawn            also writes drawn/holiday-read.png: boxes and bars
  ferlib predict portrait.png --box 40,60,120,120   this face: left, top, width, height in pixels
  ferlib predict faces/*.png --whole                pictures that are cut-out faces already

Faces are found by scikit-image's bundled detector of frontal faces; nothing is downloaded and nothing leaves
this machine. A face is cut out as FER+ cuts out its own, made grey and 48 pixels small. A phone's note that
the picture is rotated is obeyed. What the model is good for, and what not: MODEL_CARD.md beside it, and
`ferlib predict --card`.

Exit code 0; 1 where a file could not be read; 3 where all could be read but one shows no face. The other
pictures are answered all the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ferlib.data.base import DataError
from ferlib.data.images import read_image
from ferlib.pictures import Answer, Box, FaceReader, find_faces, frame, to_grey
from ferlib.pictures.classifier import FOLDER
from ferlib.training.files import replacing

NO_FACE = "no frontal face was found: name it with --box x,y,w,h, or use --whole if the picture is one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib predict``. Shape: parser in, nothing out."""
    add = parser.add_argument
    add("pictures", nargs="*", metavar="PICTURE", help="PNG, JPEG, BMP or WebP")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--box", metavar="X,Y,W,H", help="the face of every picture, in pixels; none is searched"
    )
    where.add_argument(
        "--whole", action="store_true", help="every picture is a face: its middle square is read"
    )
    add("--json", action="store_true", help="JSON instead of a table, with the evidence maps")
    add("--out", metavar="DIR", help="also write each picture with boxes and bars into this folder")
    add("--model", metavar="FILE", help="another file that `ferlib export` wrote")
    add("--card", action="store_true", help="print the shipped model's card and stop")


def run(options: argparse.Namespace) -> int:
    """Read, print, draw. Shape: parsed options -> exit code. Raises ``DataError``."""
    if options.card:
        print((FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8"))
        return 0
    if not options.pictures:
        raise DataError("no picture was named: ferlib predict PICTURE...")
    asked = Box.parse(options.box) if options.box else None
    reader = FaceReader(options.model)
    told, code, written = [], 0, set()
    for name in options.pictures:
        try:
            entry, picture, faces = _read(reader, name, asked, options.whole)
        except DataError as error:
            told.append({"picture": name, "error": str(error)})
            code = 1
            if not options.json:
                print(error, file=sys.stderr)
            continue
        told.append(entry)
        if not faces:
            code = code or 3
        if not options.json:
            print(_table(name, faces))
        if options.out:
            _draw(Path(options.out), name, picture, faces, written)
    if options.json:
        model = {"file": reader.path.name, **{k: reader.facts[k] for k in ("classes", "temperature")}}
        print(json.dumps({"model": model, "pictures": told}, indent=1, ensure_ascii=False))
    return code


def _read(
    reader: FaceReader, name: str, asked: Box | None, whole: bool
) -> tuple[dict[str, Any], np.ndarray, list[tuple[Box, Answer]]]:
    picture = read_image(name, mode="RGB")
    grey = to_grey(picture)
    height, width = grey.shape
    if asked is not None:
        if not asked.meets(width, height):
            raise DataError(f"{name}: --box lies outside the picture of {width} x {height} pixels")
        if asked.side > 4 * max(width, height):
            raise DataError(f"{name}: --box is more than four times the picture of {width} x {height} pixels")
        boxes = [asked]
    elif whole:
        boxes = [Box.middle(width, height)]
    else:
        boxes = sorted((found.box for found in find_faces(grey)), key=lambda box: (box.left, box.top))
    faces = []
    if boxes:
        crops = np.stack([frame(grey, box, reader.face_size) for box in boxes])
        faces = list(zip(boxes, reader.read(crops), strict=True))
    entry = {"picture": name, "size": [width, height], "faces": [_plain(*face) for face in faces]}
    if not faces:
        entry["note"] = NO_FACE
    return entry, picture, faces


def _plain(box: Box, answer: Answer) -> dict[str, Any]:
    """A face as JSON has it."""
    shares = {c: round(float(p), 6) for c, p in zip(answer.classes, answer.probabilities, strict=True)}
    found = {
        "box": [round(v, 2) for v in (box.left, box.top, box.side, box.side)],
        "expression": answer.expression,
        "probabilities": shares,
    }
    if answer.evidence is not None:
        found["evidence"] = [np.round(m, 4).tolist() for m in answer.evidence.astype(float)]
    return found


def _table(name: str, faces: list[tuple[Box, Answer]]) -> str:
    if not faces:
        return f"{name}: {NO_FACE}"
    lines = [f"{name}: {len(faces)} {'face' if len(faces) == 1 else 'faces'}"]
    for number, (box, answer) in enumerate(faces, 1):
        best = "   ".join(f"{c} {100 * p:.0f} %" for c, p in answer.ranked()[:3])
        place = f"{box.left:.0f},{box.top:.0f},{box.side:.0f},{box.side:.0f}"
        lines.append(f"  {number}  {place:<20} {best}")
    return "\n".join(lines)


def _draw(
    folder: Path, name: str, picture: np.ndarray, faces: list[tuple[Box, Answer]], written: set[Path]
) -> None:
    from ferlib.pictures.drawing import draw_answers

    path, number = folder / f"{Path(name).stem}-read.png", 1
    while path in written:  # two pictures of one name, from two folders
        number += 1
        path = folder / f"{Path(name).stem}-read-{number}.png"
    written.add(path)
    try:
        with replacing(path) as temporary:
            draw_answers(picture, faces).save(temporary, format="PNG")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error
