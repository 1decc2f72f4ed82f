"""The `ferlib` command: help for every word, one line for what cannot be done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ferlib.cli import COMMANDS, main


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and f"ferlib {command} " in text and "--" in text


def test_help_lists_all_and_a_wrong_word_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and all(command in text for command in COMMANDS)
    for words in ([], ["preapre"], ["prepare"], ["prepare", "imagenet", "--source", "a", "--out", "b"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert "usage: ferlib" in capsys.readouterr().err


def test_the_installed_command_gives_one_line_and_code_1(tmp_path: Path) -> None:
    words = ["prepare", "rafdb", "--source", str(tmp_path / "no such"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "ferlib.cli", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"ferlib prepare: {tmp_path / 'no such'}: the folder is not there\n"


def test_a_reader_that_closes_the_pipe_ends_it_quietly() -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "ferlib", "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    command.stdout.close()
    assert command.stderr.read() == b"" and command.wait() == 0
