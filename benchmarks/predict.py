"""What one picture costs ``ferlib predict``, from start to end: processor time and peak memory.

python benchmarks/predict.py [PICTURE]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image


def main() -> None:
    """Run the command on a picture, a gray one without a face by default, and print what it took."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "face.png")
        Image.radial_gradient("L").resize((400, 400)).save(picture)  # torch here would count as memory there
        command = [sys.executable, "-m", "ferlib", "predict", *(sys.argv[1:2] or [str(picture)])]
        subprocess.run(command, check=False)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    scale = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
    print(f"{used.ru_utime + used.ru_stime:.2f} s of one core, {used.ru_maxrss / scale:.0f} MB")


if __name__ == "__main__":
    main()
