"""How many faces the renderer draws in a second.

    python benchmarks/synthetic_faces.py [--size 64] [--faces 512] [--rounds 5]

Draws the same faces several times and prints each round's rate and the best one, for gray and RGB. The
renderer uses one thread. Asserts that every round gives the same pictures, and no time.
"""

from __future__ import annotations

import argparse
import time

import torch

from ferlib.data import SyntheticFaces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--faces", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for channels in (1, 3):
        faces = SyntheticFaces(options.faces, options.size, seed=1, channels=channels)
        faces.batch(range(32))
        first, rates = None, []
        for _ in range(options.rounds):
            began = time.perf_counter()
            image = faces.batch(range(options.faces))["image"]
            rates.append(options.faces / (time.perf_counter() - began))
            first = image if first is None else first
            assert torch.equal(image, first)
        kind = "gray" if channels == 1 else "RGB"
        rounds = " ".join(f"{rate:.0f}" for rate in rates)
        print(f"{options.size} px {kind}: best {max(rates):.0f} faces/s ({rounds})")


if __name__ == "__main__":
    main()
