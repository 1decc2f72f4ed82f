"""A file is written whole or not at all, and what killed processes leave of one is removed."""

import os
import subprocess
import sys
import time
from pathlib import Path

from ferlib.files import replacing, write_text

KILLED = """
import os, sys
from ferlib.files import replacing
with replacing(sys.argv[1]) as half:
    half.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_the_half_of_a_killed_process_is_removed_by_the_next_that_writes_there(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path / f"{'é' * 120}.json")]
    assert subprocess.run(words, check=False).returncode == -9
    (half,) = tmp_path.iterdir()
    assert half.name.startswith(".") and half.read_text() == "half"
    write_text(tmp_path / "another.txt", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["another.txt"]


def test_halves_of_the_living_and_files_of_others_stay(tmp_path: Path) -> None:
    stays = [
        ".hidden",
        ".x.json.original",
        ".x.json.swp",
        ".other.json.abcd1234",
        ".x.json",
        "x.json.abcd1234",
    ]
    for name in stays:
        (tmp_path / name).write_text("mine")
    with replacing(tmp_path / "living.json") as half:
        strange = half.with_name(half.name.replace(f"-{os.getpid()}-", "-999999999-"))
        strange = strange.with_name(strange.name.replace(strange.name.split(".")[-2][:8], "00000000"))
        strange.write_text("half")
        write_text(tmp_path / "x.json", "new")
        assert half.exists() and strange.exists()
        ago = time.time() - 7200
        for path in tmp_path.iterdir():
            if path != half:
                os.utime(path, (ago, ago))
        write_text(tmp_path / "x-3.json", "new")
        assert half.exists() and not strange.exists()
        half.write_text("whole")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*stays, "living.json", "x.json", "x-3.json"}
