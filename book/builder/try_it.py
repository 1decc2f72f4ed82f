"""Make what the page "Try it" loads: the model, the face detector and the samples, as scripts.

Scripts, because a page that is opened as a file may load those and nothing else. The folder is made anew
from the package and from scikit-image, and is never committed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from PIL import Image

from book.builder import face_detector, onnx_web
from ferlib import detector
from ferlib.data import SyntheticFaces
from ferlib.detector import Box
from ferlib.predict import SURE, FaceReader, shipped_model
from ferlib.style import EMOTION_COLOURS
from ferlib.widgets.base import FOLDER as WIDGETS

FOLDER = onnx_web.FOLDER
# Synthetic portraits of FER+'s classes: expression, seed, and the face's frame as the detector finds it.
SAMPLES = (
    ("happiness", 3, Box(23, 23, 217)),
    ("surprise", 13, Box(19, 6, 243)),
    ("anger", 7, Box(13, 8, 233)),
    ("sadness", 10, Box(23, 16, 223)),
    ("fear", 2, Box(19, 22, 216)),
    ("disgust", 21, Box(25, 25, 213)),
    ("neutral", 5, Box(19, 11, 230)),
    ("contempt", 12, Box(28, 27, 209)),
)
ASTRONAUT = Box(126, 43, 99)
# Of ferlib.detector, for the page.
RULES = ("SEARCHED", "DOUBLED", "PORTRAIT", "STRIDES", "MAYBE", "CLOSER", "CLOSE")
RULES += ("SURE", "SAME", "FRAME", "BELOW")
HELPERS = ("h", "bar", "button", "viridis", "paint", "announcer", "capital", "write", "clamp")


def make() -> None:
    """Write made/*.js and made/widgets.css where they are not those of this source; bring the runtime."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    onnx_web.bring()
    finder = face_detector.bring()
    stamp, key = FOLDER / "made.txt", _key(finder)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == key:
        return
    path, facts = shipped_model()
    reader = FaceReader(path)
    classes = reader.classes
    model = {
        "classes": classes,
        "colours": [EMOTION_COLOURS[name] for name in classes],
        "faceSize": reader.face_size,
        "unsure": SURE,
        "sha256": facts["sha256"],
    }
    rules = {name.lower(): getattr(detector, name) for name in RULES}
    made = {"model": model, "rules": rules, "samples": samples(reader)}
    source = (WIDGETS / "ui.js").read_text(encoding="utf-8")
    _write("ui.js", f"(() => {{\n{source}\nglobalThis.ferUI = {{ {', '.join(HELPERS)} }};\n}})();\n")
    _write("facts.js", f"globalThis.ferTry = {{ made: {json.dumps(made, separators=(',', ':'))} }};\n")
    _write("model.js", f"globalThis.ferTry.made.model.file = {_packed(path)};\n")
    (FOLDER / "face_detector.js").unlink(missing_ok=True)
    if finder is not None:
        _write("face_detector.js", f"globalThis.ferTry.made.detector = {{ file: {_packed(finder)} }};\n")
    _write("widgets.css", (WIDGETS / "widgets.css").read_text(encoding="utf-8"))
    _write("made.txt", key)


def _packed(path: Path) -> str:
    return json.dumps(base64.b64encode(path.read_bytes()).decode())


def _key(finder: Path | None) -> str:
    """A digest of all that the samples, the model and the detector come from."""
    digest = hashlib.sha256(skimage.__version__.encode() + (finder.read_bytes() if finder else b""))
    package = WIDGETS.parents[1]
    sources = [Path(__file__), WIDGETS / "ui.js", WIDGETS / "widgets.css"]
    sources += [
        package / "style.py",
        package / "predict.py",
        package / "detector.py",
        package / "data" / "synthetic.py",
    ]
    for folder in ("pretrained", "synthetic"):
        sources += sorted(p for p in (package / folder).iterdir() if p.is_file())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def samples(reader: FaceReader) -> list[dict[str, Any]]:
    """Synthetic portraits and scikit-image's public-domain astronaut, each with its box and prediction."""
    from skimage.data import astronaut

    found = []
    for expression, seed, box in SAMPLES:
        face = SyntheticFaces(1, size=256, seed=seed, channels=3, expression=expression)[0]["image"]
        found.append(_sample(face.numpy(), f"a synthetic face, {expression}", box, reader, expression))
    portrait = np.asarray(Image.fromarray(astronaut()).resize((400, 400), Image.Resampling.BICUBIC))
    title = "the astronaut Eileen Collins, a photograph by NASA"
    found.append(_sample(np.moveaxis(portrait, 2, 0), title, ASTRONAUT, reader))
    return found


def _sample(
    picture: np.ndarray, alt: str, box: Box, reader: FaceReader, rendered: str = ""
) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(np.moveaxis(picture, 0, 2)).save(file, format="JPEG", quality=90)
    file.seek(0)  # the prediction is for what the page decodes
    shown = np.moveaxis(np.asarray(Image.open(file).convert("RGB")), 2, 0)
    (face,) = reader.read_picture(shown, [box])
    return {
        "alt": alt,
        "rendered": rendered,  # the expression that a synthetic face was given
        "picture": "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(),
        "box": {"left": box.left, "top": box.top, "side": box.side},
        "answer": {
            "probabilities": [round(float(p), 6) for p in face.probabilities],
            "evidence": [[round(float(v), 4) for v in one.ravel()] for one in face.evidence],
        },
    }


def _write(name: str, text: str) -> Path:
    place = FOLDER / name
    place.write_text(text, encoding="utf-8")
    return place


if __name__ == "__main__":
    make()
