"""Measure the face detector of ``ferlib predict``: how many faces it finds, and what it finds where none is.

    python -m book.experiments.detector --data FERPLUS

Faces of 24 to 200 pixels (the side of FER+'s frame) are put into photographs of 640 x 480 pixels without
people, four in each: FER+ validation faces, whose edge is continued and faded out, and synthetic portraits of
five skin tones, turned by 0 to 30 degrees. Every third synthetic scene is darkened to a quarter of its light.
A face is found where a box overlaps its frame by more than 0.4. False finds are counted in pictures without a
face: scikit-image's and scikit-learn's, at most 640 pixels wide. Whether a frame holds brows and mouth is
measured on the synthetic faces, whose landmarks are known. Seconds are those of one core. The thresholds were
chosen on other faces in other places. Writes ``book/results/face_detector.json``.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from scipy.stats import chi2

from book.experiments import script
from ferlib.data import FERPlus, SyntheticFaces, render_faces
from ferlib.data.faces import SomeFaces
from ferlib.detector import Box, find_faces
from ferlib.evaluation import Interval, ResultRecord, wilson_interval
from ferlib.runtime import load_runtime
from ferlib.synthetic.identity import FRAMINGS, LOOK

NAME, SEED = "face_detector", 1
DARK = 0.25  # of the light, in every third synthetic scene
WIDTH, HEIGHT = 640, 480
PLACES = [(160, 120), (480, 120), (160, 360), (480, 360)]
SIZES = (24, 32, 48, 72, 110, 200)
MARGIN = 0.2  # of a FER+ face's side, on each side
TONES, YAWS = (0.05, 0.28, 0.52, 0.75, 0.98), (0, 10, 20, 30)  # light to dark; degrees
FOUND = 0.4
EMPTY = ("brick", "chelsea", "coffee", "coins", "grass", "gravel", "horse", "hubble_deep_field")
EMPTY += ("immunohistochemistry", "moon", "page", "text", "rocket", "retina", "clock")
BROWS, MOUTH = slice(17, 27), slice(48, 68)


@dataclass
class Scene:
    """A picture uint8 (3, H, W), the frames of its faces, and what is known of each."""

    picture: np.ndarray
    frames: list[Box]
    conditions: list[list[str]]
    landmarks: list[np.ndarray] = field(default_factory=list)


def empty_pictures() -> dict[str, np.ndarray]:
    """Photographs, drawings and text without a face, uint8 (H, W, 3), by name."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    pictures = {name: getattr(data, name)() for name in EMPTY}
    pictures["stereo_motorcycle"] = data.stereo_motorcycle()[0]
    pictures |= {name: load_sample_image(name) for name in ("china.jpg", "flower.jpg")}
    found = {}
    for name, pixels in pictures.items():
        image = Image.fromarray(pixels).convert("RGB")
        image.thumbnail((WIDTH, WIDTH), Image.Resampling.BICUBIC)
        found[name] = np.asarray(image)
    return found


def ground(pictures: list[np.ndarray], number: int) -> np.ndarray:
    """The middle of one of the pictures, as float32 (HEIGHT, WIDTH, 3)."""
    image = Image.fromarray(pictures[number % len(pictures)])
    scale = max(WIDTH / image.width, HEIGHT / image.height)
    size = math.ceil(image.width * scale), math.ceil(image.height * scale)
    return np.asarray(image.resize(size))[:HEIGHT, :WIDTH].astype(np.float32)


def corner(place: tuple[int, int], side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Where a square of a side begins that lies near a place, within the picture."""
    across, down = (middle - side / 2 + rng.integers(-20, 20) for middle in place)
    return int(np.clip(across, 0, WIDTH - side)), int(np.clip(down, 0, HEIGHT - side))


def photographed(faces: SomeFaces, pictures: list[np.ndarray], rng: np.random.Generator) -> list[Scene]:
    """FER+ faces in gray photographs, four in each."""
    scenes = []
    for first in range(0, len(faces) - 3, 4):
        gray = np.repeat(ground(pictures, first // 4).mean(2, keepdims=True), 3, 2)
        scene = Scene(gray, [], [])
        for number, place in enumerate(PLACES, first):
            size = SIZES[number % len(SIZES)]
            face = faces[number]["image"][0].numpy()
            edge = round(MARGIN * len(face))
            side = round(size * (1 + 2 * MARGIN))
            wide = Image.fromarray(np.pad(face, edge, mode="edge")).resize((side, side))
            line = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)) / (0.1 * side)
            shown = np.minimum(1, np.minimum(line[:, None], line[None]))[..., None]
            x, y = corner(place, side, rng)
            under = gray[y : y + side, x : x + side]
            gray[y : y + side, x : x + side] = shown * np.asarray(wide)[..., None] + (1 - shown) * under
            inset = side * edge / (len(face) + 2 * edge)
            scene.frames.append(Box(x + inset, y + inset, size))
            scene.conditions.append([f"FER+, {size} pixels", "FER+, all sizes"])
        scene.picture = np.moveaxis(gray.round().astype(np.uint8), 2, 0)
        scenes.append(scene)
    return scenes


def rendered(count: int, pictures: list[np.ndarray], rng: np.random.Generator) -> list[Scene]:
    """Synthetic portraits in photographs, four in each; every tone is seen at every angle and size."""
    drawn = SyntheticFaces(4 * count, size=64, seed=SEED, channels=3).parameters(range(4 * count))
    tones = [TONES[i % len(TONES)] for i in range(len(drawn))]
    yaws = [YAWS[i // len(TONES) % len(YAWS)] for i in range(len(drawn))]
    look, pose = drawn.look.clone(), drawn.pose.clone()
    look[:, LOOK.index("skin")] = torch.tensor(tones)
    pose[:, 0] = torch.tensor(yaws) * torch.from_numpy(rng.choice([-1.0, 1.0], len(drawn)))
    drawn = drawn.replace(look=look, pose=pose)
    eyes, lower, width = FRAMINGS["ferplus"][0]
    scenes = []
    for first in range(0, len(drawn), 4):
        colors = ground(pictures, first // 4)
        scene = Scene(colors, [], [])
        for number, place in enumerate(PLACES, first):
            size = int(rng.choice(SIZES))
            side = round(size * width / FRAMINGS["portrait"][0][2])
            found = render_faces(drawn[[number]], size=max(side, 64), channels=3)
            image = Image.fromarray(found.image[0].permute(1, 2, 0).numpy()).resize((side, side))
            x, y = corner(place, side, rng)
            colors[y : y + side, x : x + side] = np.asarray(image)
            points = found.landmarks[0].numpy() * side / max(side, 64) + (x, y)
            middle = (points[36] + points[45]) / 2
            scene.frames.append(Box(*(middle - np.array([eyes, lower]) * size).tolist(), size))
            scene.landmarks.append(points)
            tone, yaw = tones[number], yaws[number]
            angle = f"synthetic, turned by {yaw} degrees"
            light = "synthetic, a quarter of the light" if first // 4 % 3 == 2 else "synthetic, full light"
            skin = f"synthetic, skin tone {TONES.index(tone) + 1} of {len(TONES)}"
            scene.conditions.append([f"synthetic, {size} pixels", skin, angle, light, "synthetic, all sizes"])
        if first // 4 % 3 == 2:
            colors *= DARK
        scene.picture = np.moveaxis(colors.round().astype(np.uint8), 2, 0)
        scenes.append(scene)
    return scenes


def holds(box: Box, points: np.ndarray) -> bool:
    """Whether brows and mouth, points (68, 2), lie inside a box."""
    inside = (points - (box.left, box.top)) / box.side
    return bool(inside[BROWS].min() >= 0 and inside[MOUTH].min() >= 0 and inside[MOUTH].max() <= 1)


def rate(count: int, megapixels: float) -> Interval:
    """Finds per megapixel with the exact interval of a Poisson count."""
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return Interval(count / megapixels, low / megapixels, chi2.ppf(0.975, 2 * count + 2) / 2 / megapixels)


def main() -> None:
    parser = script.parser(__doc__, data=True)
    parser.add_argument("--scenes", type=int, default=30, help="pictures of each kind, four faces in each")
    options, began = parser.parse_args(), time.process_time()
    rng = np.random.default_rng(SEED)
    empty = empty_pictures()
    grounds = [empty[name] for name in ("chelsea", "coffee", "rocket", "china.jpg", "flower.jpg", "brick")]
    faces = SomeFaces.drawn(FERPlus(options.data, "valid"), 4 * options.scenes)
    scenes = photographed(faces, grounds, rng) + rendered(options.scenes, grounds, rng)
    megapixels = sum(picture.shape[0] * picture.shape[1] for picture in empty.values()) / 1e6
    record = ResultRecord(
        NAME,
        "faces of known size, skin tone and pose that the detector finds, and what it finds where none is",
        data={"name": "FER+ and SyntheticFaces in photographs", "scenes": len(scenes), "seed": SEED},
        settings={"sizes": SIZES, "skin tones": TONES, "degrees": YAWS, "dark": DARK, "overlap": FOUND},
        seed=SEED,
        command=f"python -m book.experiments.detector --data FERPlus --scenes {options.scenes}",
    )
    seen, framed, seconds = defaultdict(list), [], []
    for scene in scenes:
        start = time.process_time()
        boxes = find_faces(scene.picture)
        seconds.append(time.process_time() - start)
        for number, (truth, conditions) in enumerate(zip(scene.frames, scene.conditions, strict=True)):
            near = [box for box in boxes if box.overlap(truth) > FOUND]
            for condition in conditions:
                seen[condition].append(bool(near))
            if near and scene.landmarks:
                framed.append(holds(near[0], scene.landmarks[number]))
    for condition, found in seen.items():
        record.add("recall", wilson_interval(sum(found), len(found)), condition=condition, over="faces")
    record.extra["faces"] = {condition: len(found) for condition, found in seen.items()}
    share = wilson_interval(sum(framed), len(framed))
    record.add("frames that hold brows and mouth", share, over="faces")
    false = {name: len(find_faces(np.moveaxis(picture, 2, 0))) for name, picture in empty.items()}
    record.add("false finds per megapixel", rate(sum(false.values()), megapixels), over="finds")
    record.add("seconds per picture", Interval(float(np.median(seconds))))
    record.extra["false finds"] = {name: count for name, count in false.items() if count}
    record.extra["megapixels"] = megapixels
    record.versions = {"onnxruntime": load_runtime().__version__, "device": "cpu"}
    record.seconds = round(time.process_time() - began, 1)
    print(record.save())
    print(record.table())


if __name__ == "__main__":
    main()
