"""Measure how well a landmark network trained on real faces finds the landmarks of drawn ones.

    python -m book.experiments.landmark_error --weights /path/to/mobilefacenet.safetensors

The normalised mean error of a face is the mean distance between found and true points, divided by the
distance between the outer eye corners. Whole pictures are given to the network, 112 pixels wide, RGB in
[0, 1]. Writes ``book/results/landmark_error.json``.
"""

from __future__ import annotations

from pathlib import Path

import torch

from book.experiments import script
from ferlib.data import EMOTIONS_FERPLUS, SyntheticFaces
from ferlib.evaluation import ResultRecord, mean_interval
from ferlib.models import MobileFaceNet
from ferlib.weights import load_network

NAME, FACES, SEED = "landmark_error", 512, 0
PARTS = {
    "jaw": (0, 17),
    "brows": (17, 27),
    "nose": (27, 36),
    "eyes": (36, 48),
    "mouth": (48, 68),
}


@torch.inference_mode()
def errors(network: MobileFaceNet, faces: SyntheticFaces) -> torch.Tensor:
    """Distance of every point in shares of the outer-eye distance: ``(N, 68)``."""
    found = []
    for rows in torch.arange(len(faces)).split(32):
        batch = faces.batch(rows)
        points = network(batch["image"].float() / 255).landmarks * faces.size
        truth = batch["landmarks"]
        width = (truth[:, 36] - truth[:, 45]).norm(dim=1)[:, None]
        found.append((points - truth).norm(dim=2) / width)
    return torch.cat(found)


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument(
        "--weights", required=True, type=Path, help="MobileFaceNet, 68 landmarks, safetensors"
    )
    options = parser.parse_args()
    network = load_network(options.weights, MobileFaceNet())
    record = ResultRecord(
        NAME,
        "normalised mean error of a landmark network trained on real faces, on drawn faces",
        data={"name": "SyntheticFaces", "faces": FACES, "seed": SEED},
        settings={"size": 112, "channels": 3, "framings": ["portrait", "ferplus"]},
        seed=SEED,
        command=f"python -m book.experiments.{NAME} --weights mobilefacenet.safetensors",
    )
    for framing in ("portrait", "ferplus"):
        faces = SyntheticFaces(FACES, 112, SEED, channels=3, framing=framing)
        error = errors(network, faces)
        place = {"condition": framing, "over": "faces"}
        record.add("landmark error, 68 points", mean_interval(error.mean(1)), **place)
        record.add("landmark error, without the jaw", mean_interval(error[:, 17:].mean(1)), **place)
        record.extra[framing] = {
            "by part": {k: float(error[:, a:b].mean()) for k, (a, b) in PARTS.items()},
            "by expression": {
                name: float(error[faces.labels == k].mean()) for k, name in enumerate(EMOTIONS_FERPLUS)
            },
        }
    path = record.save()
    print(record.table())
    print(f"{path} written")


if __name__ == "__main__":
    main()
