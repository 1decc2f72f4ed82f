"""Read the expressions in pictures of your own with the model that comes with ferlib.

  ferlib predict holiday.jpg
  ferlib predict *.jpg --json
  ferlib predict holiday.jpg --out drawn            also writes drawn/holiday-read.png: boxes and bars
  ferlib predict portrait.png --box 40,60,120,120   this face: left, top, width, height in pixels
  ferlib predict faces/*.png --whole                pictures that are cut-out faces already

Faces are found by scikit-image's bundled detector of frontal faces; nothing is downloaded and nothing leaves
this machine. A face is cut out as FER+ cuts out its own, made gray and 48 pixels small. A phone's note that
the picture is rotated is obeyed. What the model is good for, and what not: MODEL_CARD.md beside it, and
`ferlib predict --card`.

Exit code 0; 1 where a file could not be read; 3 where all could be read but one shows no face. The other
pictures are read all the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ferlib import predict
from ferlib.errors import DataError
from ferlib.files import replacing
from ferlib.images import read_image
from ferlib.predict import Box, FaceReader, Prediction

NO_FACE = "no frontal face was found: name it with --box x,y,w,h, or use --whole if the picture is one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib predict``."""
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
    """Read the pictures and print, write or draw what they show; return the exit code."""
    if options.card:
        print((predict.FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8"))
        return 0
    if not options.pictures:
        raise DataError("no picture was named: ferlib predict PICTURE...")
    given = Box.parse(options.box) if options.box else None
    reader = FaceReader(options.model)
    entries, code, written = [], 0, set()
    for name in options.pictures:
        try:
            picture = read_image(name, mode="RGB")
            faces = reader.read_picture(picture, _boxes(name, picture, given, options.whole))
        except DataError as error:
            entries.append({"picture": name, "error": str(error)})
            code = 1
            if not options.json:
                print(error, file=sys.stderr)
            continue
        entries.append(_entry(name, picture, faces))
        code = code if faces or code else 3
        if not options.json:
            print(_table(name, faces))
        if options.out:
            _save(Path(options.out), name, picture, faces, written)
    if options.json:
        model = {"file": reader.path.name, **{k: reader.facts[k] for k in ("classes", "temperature")}}
        print(json.dumps({"model": model, "pictures": entries}, indent=1, ensure_ascii=False))
    return code


def _boxes(name: str, picture: np.ndarray, given: Box | None, whole: bool) -> list[Box] | None:
    """Where the face is by the command's options, or None where it is to be found."""
    height, width = picture.shape[1:]
    if given is None:
        return [Box.middle(width, height)] if whole else None
    if not given.meets(width, height):
        raise DataError(f"{name}: --box lies outside the picture of {width} x {height} pixels")
    if given.side > 4 * max(width, height):
        raise DataError(f"{name}: --box is more than four times the picture of {width} x {height} pixels")
    return [given]


def _entry(name: str, picture: np.ndarray, faces: list[Prediction]) -> dict[str, Any]:
    """A picture and its faces as JSON has them."""
    height, width = picture.shape[1:]
    entry: dict[str, Any] = {"picture": name, "size": [width, height], "faces": []}
    for face in faces:
        box, shares = face.box, zip(face.classes, face.probabilities, strict=True)
        plain: dict[str, Any] = {
            "box": [round(v, 2) for v in (box.left, box.top, box.side, box.side)],
            "expression": face.expression,
            "probabilities": {c: round(float(p), 6) for c, p in shares},
        }
        if face.evidence is not None:
            plain["evidence"] = [np.round(m, 4).tolist() for m in face.evidence.astype(float)]
        entry["faces"].append(plain)
    if not faces:
        entry["note"] = NO_FACE
    return entry


def _table(name: str, faces: list[Prediction]) -> str:
    if not faces:
        return f"{name}: {NO_FACE}"
    lines = [f"{name}: {len(faces)} {'face' if len(faces) == 1 else 'faces'}"]
    for number, face in enumerate(faces, 1):
        best = "   ".join(f"{c} {100 * p:.0f} %" for c, p in face.ranked()[:3])
        box = face.box
        place = f"{box.left:.0f},{box.top:.0f},{box.side:.0f},{box.side:.0f}"
        lines.append(f"  {number}  {place:<20} {best}")
    return "\n".join(lines)


def _save(folder: Path, name: str, picture: np.ndarray, faces: list[Prediction], written: set[Path]) -> None:
    path, number = folder / f"{Path(name).stem}-read.png", 1
    while path in written:  # two pictures of one name, from two folders
        number += 1
        path = folder / f"{Path(name).stem}-read-{number}.png"
    written.add(path)
    try:
        with replacing(path) as temporary:
            predict.draw(picture, faces).save(temporary, format="PNG")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}") from error
