"""The `ferlib` command: help for every word, one line for what cannot be done."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from ferlib import cli
from ferlib.cli import COMMANDS, main
from ferlib.errors import DataError


def test_help_lists_all_and_a_wrong_word_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and all(command in text for command in COMMANDS)
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        text = capsys.readouterr().out
        assert stop.value.code == 0 and f"ferlib {command} " in text and "--" in text
    for words in ([], ["preapre"], ["prepare"], ["prepare", "imagenet", "--source", "a", "--out", "b"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert "usage: ferlib" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "prepare rafdb --source a --out b",
        "train",
        "evaluate --checkpoint a --data b",
        "export --checkpoint a --out b",
        "predict a",
        "convert --architecture a b c",
        "doctor",
    ],
)
def test_a_defect_shows_its_traceback_and_says_that_it_is_ours(words, monkeypatch) -> None:
    monkeypatch.setattr(f"ferlib.commands.{words.split()[0]}.run", lambda options: 1 // 0)
    with pytest.raises(ZeroDivisionError) as error:
        main(words.split())
    assert "defect of ferlib" in error.value.__notes__[0]


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


@pytest.mark.parametrize(
    "error, said",
    [
        (DataError("two\nlines, \x1b[31mred", "a\udc80.png"), "a\\udc80.png: two lines, \\x1b[31mred"),
        (OSError(errno.ENOSPC, "No space left on device", "out.json"), "out.json: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", b"in.json"), "in.json: Permission denied"),
        (MemoryError(), "MemoryError"),
        (RecursionError("too deep"), "too deep"),
    ],
)
def test_what_a_reader_can_cause_is_one_printable_line(error, said, monkeypatch, capsys) -> None:
    def run(_: object) -> int:
        raise error

    monkeypatch.setattr("ferlib.commands.doctor.run", run)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == f"ferlib doctor: {said}\n" and isinstance(error, cli.CAUGHT)
