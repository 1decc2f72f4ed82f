"""The page "Try it" in a real browser without a network: uploads, a camera, the square, a missing runtime."""

import base64
import functools
import http.server
import io
import json
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from book.builder import notebooks, onnx_web
from ferlib.data import SyntheticFaces
from ferlib.detector import Box, find_faces
from ferlib.predict import FaceReader
from tests.reader import FLAGS, Reader, chromium_path, says

HTML = notebooks.ROOT / "_build" / "html"
PAGE = HTML / "book" / "try_it.html"
pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]' brings Playwright")
WAIT = 60_000


@pytest.fixture(scope="module", autouse=True)
def built(html: Path) -> None:
    """The built book, whose page can compute."""
    if not (onnx_web.FOLDER / onnx_web.SCRIPT).is_file():
        pytest.skip("onnxruntime-web could not be fetched, so this copy of the page cannot compute")


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    face = SyntheticFaces(1, size=256, seed=5, channels=3, expression="surprise")[0]["image"]
    return Image.fromarray(face.permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def pictures(portrait: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One drawn face in every kind of file that a reader may bring."""
    folder = tmp_path_factory.mktemp("pictures")
    portrait.save(folder / "face.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = portrait.transpose(Image.Transpose.ROTATE_90)
    turned.save(folder / "phone.jpg", quality=95, exif=exif)
    Image.new("RGB", (300, 200), (120, 140, 160)).save(folder / "wall.png")
    (folder / "text.jpg").write_text("this is a text\n")
    return folder


@pytest.fixture(scope="module")
def page(browser):
    """One page for the uploads: the runtime starts once."""
    with Reader(browser, PAGE, width=1000) as reader:
        yield reader
        assert reader.outside == [], "the page asks the network"
        assert reader.errors == []


def settled(page, wanted: str = "answered") -> None:
    page.wait_for_function(
        "state => document.getElementById('fer-try').dataset.state === state", arg=wanted, timeout=WAIT
    )


def upload(page, path: Path, wanted: str = "answered") -> None:
    page.evaluate("document.getElementById('fer-try').dataset.state = 'asked'")
    page.set_input_files("#fer-file", path)
    settled(page, wanted)


def answered(page) -> np.ndarray:
    return np.array(json.loads(page.locator(".fer-answer").get_attribute("data-answer"))["probabilities"])


def where(page) -> Box:
    """The square in the picture's pixels, as the page shows it."""
    found = page.evaluate(
        """() => {
            const {style} = document.querySelector('.fer-box'), of = (n) => parseFloat(style[n]) / 100;
            return [of('left'), of('top'), of('width'), of('height')];
        }"""
    )
    return Box(found[0], found[1], found[2])


def read(picture: Image.Image, box: Box) -> np.ndarray:
    pixels = np.moveaxis(np.asarray(picture.convert("RGB")), 2, 0)
    return FaceReader().read_picture(pixels, [box])[0].probabilities


@pytest.mark.parametrize(("name", "tolerance"), [("face.png", 0.003), ("phone.jpg", 0.03)])
def test_an_upload_is_answered_as_the_terminal_answers(page, pictures, name, tolerance):
    upload(page.page, pictures / name)
    picture = ImageOps.exif_transpose(Image.open(pictures / name)).convert("RGB")
    wanted = find_faces(np.moveaxis(np.asarray(picture), 2, 0))[0]
    found = json.loads(page.page.locator("#fer-try").get_attribute("data-found"))[0]
    assert abs(found["left"] - wanted.left) < 4 and abs(found["side"] - wanted.side) < 6
    there = read(picture, Box(found["left"], found["top"], found["side"]))
    np.testing.assert_allclose(answered(page.page), there, atol=tolerance)
    says(page.page.locator(".fer-status"), "found")


def test_without_the_detector_a_reader_places_the_square(browser, pictures):
    with Reader(browser, PAGE) as reader:
        reader.page.route("**/made/face_detector.js", lambda route: route.abort())
        reader.page.reload()
        upload(reader.page, pictures / "face.png", "faceless")
        says(reader.page.locator(".fer-status"), "face_detector.js")
        reader.page.locator(".fer-box").press("ArrowLeft")
        settled(reader.page)
        assert answered(reader.page).sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "state", "told"),
    [
        ("wall.png", "faceless", "No face was found"),
        ("text.jpg", "refused", "text.jpg is not a picture"),
    ],
)
def test_without_a_face_or_a_picture_the_last_answer_goes(page, pictures, name, state, told):
    upload(page.page, pictures / "face.png")
    upload(page.page, pictures / name, state)
    says(page.page.locator(".fer-status"), told)
    verdict = page.page.locator(".fer-answer")
    assert verdict.get_attribute("data-answer") is None and "%" not in verdict.inner_text()
    assert page.page.locator(".fer-box").is_visible() is (state == "faceless")
    if state == "faceless":  # the reader may know better
        assert json.loads(page.page.locator("#fer-try").get_attribute("data-found")) == []
        page.page.locator(".fer-box").press("ArrowLeft")
        settled(page.page)
        assert answered(page.page).sum() == pytest.approx(1, abs=1e-4)


def test_the_square_is_dragged_and_moved_by_keys(page, pictures, portrait):
    upload(page.page, pictures / "face.png")
    before, start = answered(page.page), where(page.page)
    box = page.page.locator(".fer-box").bounding_box()
    mouse = page.page.mouse
    mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    mouse.down()
    mouse.move(box["x"] + box["width"] / 2 + 40, box["y"] + box["height"] / 2 + 30, steps=3)
    mouse.up()
    moved = where(page.page)
    assert moved.left > start.left and moved.top > start.top and moved.side == pytest.approx(start.side)
    page.page.wait_for_function(
        "old => document.querySelector('.fer-answer').dataset.answer !== old",
        arg=json.dumps({"probabilities": before.tolist()}),
        timeout=WAIT,
    )
    page.page.locator(".fer-box").focus()
    for key in ("ArrowLeft", "Shift+ArrowUp", "+", "+"):
        page.page.keyboard.press(key)
    last = where(page.page)
    assert last.side > moved.side and last.top < moved.top
    page.page.wait_for_timeout(1500)
    wanted = read(portrait, Box(256 * last.left, 256 * last.top, 256 * last.side))
    np.testing.assert_allclose(answered(page.page), wanted, atol=0.01)
    label = page.page.locator(".fer-box").get_attribute("aria-label")
    assert f"{round(256 * last.side)} pixels wide" in label


def test_samples_are_read_as_meant_or_a_sentence_says_what_was_rendered(browser):
    with Reader(browser, PAGE) as reader:
        settled(reader.page)  # the first one, when the page opens
        samples = reader.page.evaluate("ferTry.made.samples.map(s => [s.alt, s.rendered])")
        for number, (alt, rendered) in enumerate(samples):
            reader.page.evaluate("document.getElementById('fer-try').dataset.state = 'asked'")
            reader.page.locator(".fer-sample").nth(number).click()
            settled(reader.page)
            verdict = reader.page.locator(".fer-answer").inner_text().lower()
            told = f"Rendered as {rendered}" in reader.page.locator(".fer-note").inner_text()
            assert told != verdict.startswith(rendered) and told == (rendered == "contempt"), (alt, verdict)


def test_a_sample_shows_bars_and_where_it_looks(page):
    page.page.locator(".fer-sample").first.click()
    settled(page.page)
    page.page.wait_for_timeout(300)
    marked = page.page.locator(".fer-sample").evaluate_all("all => all.map(e => e.ariaCurrent)")
    assert marked[0] == "true" and not any(marked[1:])
    likeliest = answered(page.page).max()
    assert page.page.locator(".fer-answer").inner_text().endswith("%")
    assert page.page.locator(".fer-answer").inner_text().startswith("Unsure") == (likeliest < 0.5)
    rows = page.page.locator(".fer-expression")
    assert rows.count() == 8
    for chosen in (6, int(answered(page.page).argmax())):
        rows.nth(chosen).focus()
        page.page.keyboard.press("Enter")
        assert rows.nth(chosen).get_attribute("aria-pressed") == "true"
        caption = page.page.locator(".fer-faces figcaption").last.inner_text()
        assert caption == f"Where it finds {rows.nth(chosen).locator('.fer-name').inner_text()}"
    colored = page.page.evaluate(
        """() => { const c = [...document.querySelectorAll('.fer-faces canvas')].pop();
            const d = c.getContext('2d').getImageData(0, 0, 48, 48).data;
            return d.some((_, i) => i % 4 === 0 && d[i] !== d[i + 1]); }"""
    )
    assert colored, "no evidence is drawn for the likeliest expression"
    live = page.page.locator(".fer-result [role=status]")
    page.page.wait_for_function("e => e.textContent.includes('The model answers')", arg=live.element_handle())


@pytest.mark.parametrize("name", ["ort.js", "model.js"])
def test_without_runtime_or_model_the_page_says_so(browser, name):
    with Reader(browser, PAGE, width=380) as reader:
        reader.page.route(f"**/made/{name}", lambda route: route.abort())
        reader.page.reload()
        reader.page.locator(".fer-sample").nth(1).click()
        settled(reader.page, "missing")
        status = reader.page.locator(".fer-status").inner_text()
        assert name in status and "computed when the book was built" in status
        sample = reader.page.evaluate("ferTry.made.samples[1]")
        np.testing.assert_allclose(answered(reader.page), sample["answer"]["probabilities"])
        picture = Image.open(io.BytesIO(base64.b64decode(sample["picture"].split(",")[1])))
        there = read(picture, Box(**sample["box"]))  # what was computed is what the terminal says
        np.testing.assert_allclose(sample["answer"]["probabilities"], there, atol=1e-4)
        assert reader.outside == [] and reader.overflow() <= 1, "it does not fit a phone"


@contextmanager
def with_camera(browser, portrait: Image.Image, folder: Path):
    """Chromium whose camera shows a drawn face."""
    sheet = Image.new("RGB", (320, 256), "white")
    sheet.paste(portrait, (32, 0))
    luma, blue, red = sheet.convert("YCbCr").split()
    small = [plane.resize((160, 128)) for plane in (blue, red)]
    frame_bytes = b"FRAME\n" + luma.tobytes() + b"".join(plane.tobytes() for plane in small)
    film = folder / "face.y4m"
    film.write_bytes(b"YUV4MPEG2 W320 H256 F10:1 Ip A1:1 C420jpeg\n" + frame_bytes * 4)
    flags = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    ]
    chromium = browser.browser_type.launch(executable_path=chromium_path(), args=[*FLAGS, *flags])
    yield chromium
    chromium.close()


def test_the_camera_is_read_and_let_go(browser, portrait, tmp_path):
    with with_camera(browser, portrait, tmp_path) as chromium, Reader(chromium, PAGE) as reader:
        page = reader.page
        button = page.get_by_role("button", name="Use the camera")
        button.click()
        settled(page)
        page.wait_for_function(
            "() => JSON.parse(document.getElementById('fer-try').dataset.found || '[]').length === 1",
            timeout=WAIT,
        )
        page.wait_for_timeout(1000)
        box = where(page)
        assert 0.1 < box.left < 0.5 and 0.3 < box.side < 0.8  # on the face, not in the middle of nothing
        assert answered(page).sum() == pytest.approx(1, abs=1e-4)
        page.get_by_role("button", name="Stop the camera").click()
        says(page.locator(".fer-status"), "camera is off")
        assert reader.outside == [] and reader.errors == []


def test_without_a_camera_the_page_says_so(browser):
    with Reader(browser, PAGE) as reader:
        settled(reader.page)
        reader.page.get_by_role("button", name="Use the camera").click()
        settled(reader.page, "refused")
        says(reader.page.locator(".fer-status"), "camera")


@pytest.fixture
def served():
    """The built book on a plain folder server of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


LOADED = """(src) => new Promise((done) => {
    const element = document.createElement("script");
    Object.assign(element, { src, onload: () => done("loaded"), onerror: () => done("refused") });
    document.head.append(element);
})"""


def test_from_a_folder_server_nothing_else_is_asked_and_nothing_foreign_loaded(browser, served, pictures):
    context = browser.new_context()
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{served}/book/try_it.html", wait_until="load")
    settled(page)
    page.set_input_files("#fer-file", pictures / "face.png")
    settled(page)
    assert answered(page).sum() == pytest.approx(1, abs=1e-4)
    strangers = [url for url in asked if not url.startswith((f"{served}/", "data:", "blob:"))]
    assert strangers == []
    refused = page.evaluate("fetch('/index.html').then(() => 'sent', () => 'refused')")
    assert refused == "refused", "a script of the page can send a request"
    foreign = served.replace("127.0.0.1", "localhost")
    for place, wanted in ((served, "loaded"), (foreign, "refused")):
        assert page.evaluate(LOADED, f"{place}/_static/try_it/camera.js") == wanted, place
    context.close()
