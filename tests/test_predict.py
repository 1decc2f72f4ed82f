"""`ferlib predict`: drawn faces in many kinds of files, and what is no picture or shows no face."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ferlib.cli import main
from ferlib.data import SyntheticFaces
from ferlib.data.faces import drawn_faces
from ferlib.data.transforms import resize
from ferlib.predict import Box, FaceReader, PredictError, find_faces, frame, shipped_model, to_gray

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    face = SyntheticFaces(1, size=256, seed=3, channels=3, expression="happiness")[0]["image"]
    return Image.fromarray(face.permute(1, 2, 0).numpy())


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ask(capsys, *words: str) -> tuple[int, dict]:
    code = main(["predict", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def near(box: list[float], wanted: list[float], tolerance: float = 8) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(box, wanted, strict=True))


def test_every_kind_of_file_gives_the_same_answer(portrait, capsys):
    portrait.save("a.png")
    portrait.save("b.jpg", quality=97, subsampling=0)
    portrait.save("c.webp", lossless=True)
    code, told = ask(capsys, "a.png", "b.jpg", "c.webp")
    assert code == 0
    first, jpeg, webp = (entry["faces"][0] for entry in told["pictures"])
    assert first["box"] == webp["box"] and first["probabilities"] == webp["probabilities"]
    assert near(jpeg["box"], first["box"])
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert first["expression"] == max(first["probabilities"], key=first["probabilities"].get)
    assert np.array(first["evidence"]).shape == (8, 6, 6)


def test_a_phones_rotation_is_obeyed(portrait, capsys):
    portrait.save("upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    portrait.transpose(Image.Transpose.ROTATE_90).save("phone.png", exif=exif)
    _, told = ask(capsys, "upright.png", "phone.png")
    upright, phone = told["pictures"]
    assert upright["faces"] == phone["faces"]


def test_two_faces_no_face_and_no_picture(portrait, capsys):
    pair = Image.new("RGB", (512, 256), "white")
    pair.paste(portrait, (0, 0))
    other = SyntheticFaces(1, size=256, seed=5, channels=3, expression="surprise")[0]["image"]
    pair.paste(Image.fromarray(other.permute(1, 2, 0).numpy()), (256, 0))
    pair.save("pair.png")
    Image.new("RGB", (200, 150), "gray").save("none.png")
    Path("text.jpg").write_text("this is a text\n")
    code, told = ask(capsys, "pair.png")
    assert code == 0 and len(told["pictures"][0]["faces"]) == 2
    left, right = told["pictures"][0]["faces"]
    assert left["box"][0] < 256 < right["box"][0] + right["box"][2]
    code, told = ask(capsys, "none.png", "pair.png")
    assert code == 3 and told["pictures"][0]["faces"] == [] and len(told["pictures"][1]["faces"]) == 2
    code, told = ask(capsys, "text.jpg", "none.png", "gone.png", "pair.png")
    assert code == 1 and "text.jpg: not an image" in told["pictures"][0]["error"]
    assert "the file is not there" in told["pictures"][2]["error"] and told["pictures"][3]["faces"]
    assert main(["predict", "none.png", "text.jpg"]) == 1
    text = capsys.readouterr()
    assert "no frontal face was found" in text.out and "--whole" in text.out and "not an image" in text.err
    assert main(["predict"]) == 1


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


@pytest.mark.parametrize("side", [48, 96, 131, 30])
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


def test_the_detector_finds_drawn_people_and_no_face_in_noise():
    found = 0
    for seed in (3, 5, 11, 4):
        picture = SyntheticFaces(1, size=240, seed=seed, channels=3, expression="neutral")[0]["image"].numpy()
        faces = find_faces(to_gray(picture))
        found += len(faces) == 1 and 100 < faces[0].side < 230
    assert found >= 3
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    assert find_faces(noise) == [] and find_faces(noise[:20, :20]) == []


def test_pictures_are_drawn_when_asked(portrait, capsys):
    portrait.save("a.png")
    Path("b").mkdir()
    portrait.save("b/a.png")
    assert main(["predict", "a.png", "b/a.png", "--box", "30,30,180,180", "--out", "drawn"]) == 0
    table = capsys.readouterr().out
    assert "1 face" in table and " %" in table
    drawn = [Image.open(f"drawn/{name}") for name in ("a-read.png", "a-read-2.png")]
    assert all(image.width > 256 and image.height >= 256 for image in drawn)
    box = np.asarray(drawn[0].convert("RGB"))[31, 60]
    assert (box != np.asarray(portrait)[31, 60]).any()


def test_a_model_that_is_none_is_told_in_one_line(portrait, capsys):
    portrait.save("a.png")
    Path("bad.onnx").write_bytes(b"not a model")
    for model in ("bad.onnx", "gone.onnx"):
        assert main(["predict", "a.png", "--model", model]) == 1
        assert model in capsys.readouterr().err
    with pytest.raises(PredictError, match=r"\(1, 64, 64\)"):
        FaceReader().read(np.zeros((1, 64, 64), np.uint8))


def test_the_card_is_at_hand(capsys):
    assert main(["predict", "--card"]) == 0
    assert shipped_model()[1]["sha256"] in capsys.readouterr().out
