"""Read the expressions in pictures of your own with the model that comes with ferlib.

  ferlib predict holiday.jpg                        pictures, folders of them, or - (standard input)
  ferlib predict *.jpg --json                       or --csv: written as each picture is done
  ferlib predict holiday.jpg --out drawn            also writes drawn/holiday-read.png: boxes and bars
  ferlib predict portrait.png --box 40,60,120,120   this face: left, top, width, height in pixels
  ferlib predict faces/*.png --whole                pictures that are cut-out faces already

Faces of 24 pixels and more are found in a picture of 640, in a larger one those of 4 % of its longer side.
Where one face fills the picture, and in large pictures, smaller ones are not searched for: "smaller than" is
that limit in pixels. "confidence" is the detector's, a file that `make book` brings. Where no expression has
half of the probability, the answer is "unsure". Nothing is
downloaded and nothing leaves this machine: onnxruntime runs with its telemetry off. A face is cut out as FER+
cuts out its own, made gray and 48 pixels small. A phone's note that the picture is rotated is obeyed. What
the model is good for, and what not: MODEL_CARD.md beside it, and `ferlib predict --card`.

Exit status 0; 1 where a file could not be read; 3 where all could be read but one shows no face. The other
pictures are read all the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ferlib.detector import SMALLEST, Box, load_detector, searched_down_to
from ferlib.errors import DataError, cell, printable
from ferlib.files import replacing
from ferlib.images import SUFFIXES, read_image
from ferlib.predict import FOLDER, FaceReader, Prediction, draw

NO_FACE = "no face was found: name it with --box x,y,w,h, or use --whole if the picture is one"
STANDARD_INPUT = ("-", "/dev/stdin")
COLUMNS = ("picture", "note", "left", "top", "side", "confidence", "expression", "label")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``ferlib predict``."""
    add = parser.add_argument
    add("pictures", nargs="*", metavar="PICTURE", help="PNG, JPEG, BMP or WebP, a folder of them, or -")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--box", metavar="X,Y,W,H", help="the face of every picture, in pixels")
    where.add_argument("--whole", action="store_true", help="every picture is a face: its middle square")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="JSON instead of a table, with the evidence maps")
    how.add_argument("--csv", action="store_true", help="CSV instead of a table, one row a face")
    add("--out", metavar="DIR", help="also write each picture with boxes and bars into this folder")
    add("--model", metavar="FILE", help="another file that `ferlib export` wrote")
    add("--card", action="store_true", help="print the shipped model's card and stop")


def run(options: argparse.Namespace) -> int:
    """Read the pictures and print, write or draw what they show; return the exit status."""
    if options.card:
        print((FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8"))
        return 0
    found = (name for word in options.pictures for name in _pictures(word))
    names = [*{os.path.abspath(name): name for name in found}.values()]  # named twice, it is read once
    if not names:
        raise DataError("no picture was named: ferlib predict PICTURE...")
    given = Box.parse(options.box) if options.box else None
    if not (given or options.whole):
        load_detector()
    reader, code = FaceReader(options.model), 0
    taken = {os.path.realpath(name) for name in names}
    if options.json:
        model = {"file": reader.path.name, **{k: reader.facts.get(k) for k in ("classes", "temperature")}}
        print(f'{{"model": {json.dumps(model)}, "pictures": [')
    elif options.csv:
        csv.writer(sys.stdout, lineterminator="\n").writerow((*COLUMNS, *map(cell, reader.classes)))
    try:
        shown = sys.stdout.isatty() or None  # where the table itself shows how far it is; None: no terminal
        for number, name in enumerate(tqdm(names, delay=2, disable=shown, leave=False, unit="picture")):
            try:
                picture = _read(name)
                faces = reader.read_picture(picture, _boxes(picture, given, options.whole))
            except DataError as error:
                entry, code = {"picture": name, "error": f"{name}: {error.reason}"}, 1
            else:
                entry, code = _entry(name, picture, faces), code or (0 if faces else 3)
                if options.out:
                    _save(Path(options.out), name, draw(picture, faces), taken)
            if options.json:
                print(",\n" * bool(number) + json.dumps(entry), end="")
            elif options.csv:
                csv.writer(sys.stdout, lineterminator="\n").writerows(_rows(entry))
            else:
                print(_table(entry), file=sys.stderr if "error" in entry else sys.stdout)
            sys.stdout.flush()
    finally:
        if options.json:
            print("]}")  # valid JSON also after Ctrl-C
    return code


def _pictures(word: str) -> list[str]:
    if word in STANDARD_INPUT or not os.path.isdir(word):
        return [word]
    found = sorted(path for path in Path(word).iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"the folder holds no picture ({', '.join(SUFFIXES)})", word)
    return [str(path) for path in found if not path.name.startswith(".")]


def _read(name: str) -> np.ndarray:
    if name not in STANDARD_INPUT:
        return read_image(name, mode="RGB")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture")
        path.write_bytes(sys.stdin.buffer.read())
        return read_image(path, mode="RGB")


def _boxes(picture: np.ndarray, given: Box | None, whole: bool) -> list[Box] | None:
    """Where the face is by the command's options, or None where it is to be found."""
    height, width = picture.shape[1:]
    if given is None:
        return [Box.middle(width, height)] if whole else None
    longest = max(width, height)
    inside = -given.side < given.left < width and -given.side < given.top < height
    if not inside or given.side > 4 * longest:
        raise DataError(
            f"--box lies outside the picture of {width} x {height} pixels, or is over four times as large"
        )
    return [given]


def _entry(name: str, picture: np.ndarray, faces: list[Prediction]) -> dict[str, Any]:
    """A picture and its faces, in plain types."""
    height, width = picture.shape[1:]
    entry: dict[str, Any] = {"picture": name, "size": [width, height], "faces": []}
    for face in faces:
        box, shares = face.box, zip(face.classes, face.probabilities, strict=True)
        plain: dict[str, Any] = {
            "box": [round(v, 2) for v in (box.left, box.top, box.side, box.side)],
            "confidence": box.confidence and round(box.confidence, 3),
            "expression": face.expression,
            "label": face.label,
            "probabilities": {c: round(float(p), 6) for c, p in shares},
        }
        if face.evidence is not None:
            plain["evidence"] = np.round(face.evidence.astype(float), 4).tolist()
        entry["faces"].append(plain)
    if not faces:
        entry["note"] = NO_FACE
    elif faces[0].box.confidence:
        entry["smaller than"] = searched_down_to(max(width, height), [face.box for face in faces])
    return entry


def _rows(entry: dict[str, Any]) -> Iterator[list[Any]]:
    """One row a face; a picture without a face has one row, too, whose note says why."""
    name, note = cell(entry["picture"]), entry.get("error") or entry.get("note", "")
    if note:
        yield [name, cell(note)]
    for face in entry.get("faces", ()):
        shares = face["probabilities"].values()
        yield [
            name,
            "",
            *face["box"][:3],
            face["confidence"],
            *map(cell, (face["expression"], face["label"])),
            *shares,
        ]


def _table(entry: dict[str, Any]) -> str:
    if note := entry.get("error") or entry.get("note"):
        return printable(note if "error" in entry else f"{entry['picture']}: {note}")
    count = len(entry["faces"])
    lines = [f"{printable(entry['picture'])}: {count} {'face' if count == 1 else 'faces'}"]
    if (side := entry.get("smaller than", 0)) > SMALLEST:
        lines[0] += f" (beside them none smaller than {side} pixels is searched for: cut it out for that)"
    for number, face in enumerate(entry["faces"], 1):
        best = sorted(face["probabilities"].items(), key=lambda pair: -pair[1])[:3]
        shares = "   ".join(f"{printable(name)} {100 * share:.0f} %" for name, share in best)
        unsure = "unsure: " * (face["label"] == "unsure")
        place = ",".join(f"{value:.0f}" for value in face["box"])
        lines.append(f"  {number}  {place:<20} {unsure}{shares}   confidence: {face['confidence'] or 'none'}")
    return "\n".join(lines)


def _save(folder: Path, name: str, drawing: Any, taken: set[str]) -> None:
    """Write a drawing beside others, never over a picture that was named or one just written."""
    stem, number = Path("stdin" if name in STANDARD_INPUT else name).stem, 1
    path = folder / f"{stem}-read.png"
    while os.path.realpath(path) in taken:
        number += 1
        path = folder / f"{stem}-read-{number}.png"
    taken.add(os.path.realpath(path))
    with replacing(path) as temporary:
        drawing.savefig(temporary, format="png")
