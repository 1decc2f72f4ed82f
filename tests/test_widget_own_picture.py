"""The reader's own picture: any file is explained or refused in one sentence; a page says what is missing."""

import base64
import io
import json
import os
import re
import subprocess
import sys

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from book.figures.own_picture import OwnPicture
from ferlib.widgets import LossExplorer

PAGE = """
import json, sys
import matplotlib.pyplot as plt
from book.figures.own_picture import OwnPicture
figure = plt.figure()
figure.set_label("a map & a face")
panel = OwnPicture(None, placeholder=figure)
bundle, _ = panel._repr_mimebundle_()
loaded = [m for m in ("ipywidgets", "torch", "anywidget") if m in sys.modules]
print(json.dumps({"bundle": bundle, "loaded": loaded}))
"""


def file(image: Image.Image, kind: str = "PNG", **how) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def choose(panel: OwnPicture, name: str, content: bytes) -> str:
    """Choose a file as the browser does, by its message; the HTML that is then shown, or the widget."""
    sent = {"name": name, "type": "", "size": len(content), "last_modified": 0}
    panel.upload.set_state({"value": [sent | {"content": memoryview(content)}]})
    answer = panel.box.children[1]
    return answer.value if isinstance(answer, ipywidgets.HTML) else answer


def test_a_picture_is_turned_cut_and_explained() -> None:
    """A phone's picture: wide, with a note to turn it by 90 degrees; what is below it is answered."""
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:, :45] = 200, 40, 40  # the left half is red: after turning, the upper one
    exif = Image.Exif()
    exif[0x0112] = 6
    got = []
    panel = OwnPicture(lambda face: got.append(face) or f"{face.shape}", placeholder="<b>x</b>", size=32)
    assert panel.box.children[1].value == "<b>x</b>"
    shown = choose(panel, "me.jpg", file(Image.fromarray(pixels), "JPEG", exif=exif, quality=95))
    assert shown == "(3, 32, 32)" and panel.upload.value == ()
    assert got[0].dtype == np.uint8 and (got[0][0, :14] > 150).all() and (got[0][0, 18:] < 50).all()


def test_what_cannot_be_used_is_told_in_one_sentence() -> None:
    whole = file(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
    huge = file(Image.new("1", (7000, 7000)))
    panel = OwnPicture(lambda face: 1 / 0, placeholder="")
    for name, content, match in [
        ("notes <1>.txt", b"hello", r"notes &lt;1&gt;\.txt cannot be used: not an image"),
        ("empty.png", b"", "empty.png cannot be used: the file is empty"),
        ("half.png", whole[: len(whole) // 2], "half.png cannot be used: damaged"),
        ("huge.png", huge, "huge.png cannot be used: too large"),
        ("good.png", whole, "good.png was read, but explaining it failed: ZeroDivisionError"),
    ]:
        text = choose(panel, name, content)
        assert re.match(rf"<p role='status'>{match}.*</p>$", text), text
        assert "\n" not in text and "/tmp" not in text


def test_answers_of_all_kinds_are_shown() -> None:
    content = file(Image.new("L", (50, 50), 90))
    figure, axes = plt.subplots(figsize=(1, 1))
    axes.plot([0, 1])
    png = choose(OwnPicture(lambda face: figure, placeholder=""), "a", content)
    plt.close(figure)
    code = re.search(r'src="data:image/png;base64,([^"]+)"', png)[1]
    assert Image.open(io.BytesIO(base64.b64decode(code))).width > 50
    explorer = LossExplorer(np.eye(3), ["a", "b", "c"])
    panel = OwnPicture(lambda face: explorer, placeholder="")
    assert choose(panel, "a", content) is explorer, "a widget stays alive"
    assert "application/vnd.jupyter.widget-view+json" in panel._repr_mimebundle_()


@pytest.fixture(scope="module")
def page() -> dict:
    environment = os.environ | {"FERLIB_STATIC": "1"}
    command = [sys.executable, "-c", PAGE]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


def test_a_page_shows_the_placeholder_and_says_what_is_missing(page: dict) -> None:
    assert page["loaded"] == [] and set(page["bundle"]) == {"text/plain", "text/html"}
    html = page["bundle"]["text/html"]
    assert "needs a running kernel" in html
    assert '<img alt="a map &amp; a face" style="max-width:100%" src="data:image/png;base64,' in html
