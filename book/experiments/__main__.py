"""The command of the experiments: ``python -m book.experiments COMMAND --help``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def parser() -> argparse.ArgumentParser:
    """What is typed."""
    found = argparse.ArgumentParser(prog="python -m book.experiments", description=__doc__)
    commands = found.add_subparsers(dest="command", required=True)
    maps = commands.add_parser("maps", help="make the faces and the maps of the frozen networks, once")
    maps.add_argument("--data", type=Path, required=True, help="FER+ in Microsoft's folders")
    maps.add_argument("--labels", type=Path, required=True, help="FER2013's labels: folder, name, fer2013")
    maps.add_argument("--weights", type=Path, required=True, help="folder of the two networks' weights")
    for command in commands.choices.values():
        command.add_argument(
            "--store", type=Path, default=Path(os.environ.get("FERLIB_STORE", ROOT / "runs" / "experiments")),
            help="folder of faces, maps and unfinished runs (default: $FERLIB_STORE, or runs/experiments)",
        )
    return found


def main() -> None:
    given = parser().parse_args()
    given.store.mkdir(parents=True, exist_ok=True)
    if given.command == "maps":
        from book.experiments import faces, maps

        found = faces.read(given.data, given.labels)
        faces.save(found, given.store)
        maps.make(found, given.weights, given.store, faces.pilots(found))


if __name__ == "__main__":
    main()
