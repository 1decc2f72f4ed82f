"""The workflow files and the citation file are valid and safe, and call what the Makefile has."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from book.builder import address
from tests.wheel import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def run(*command: object) -> subprocess.CompletedProcess[str]:
    program, *rest = map(str, command)
    program = program if program == "make" else str(Path(sys.executable).with_name(program))
    return subprocess.run([program, *rest], cwd=ROOT, capture_output=True, text=True)


def test_they_follow_their_published_schemas_and_are_safe() -> None:
    """Zizmor, offline: no secrets left on disk, no more rights than needed, no text run as a command."""
    for command in (
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS],
        ["check-jsonschema", "--builtin-schema", "vendor.citation-file-format", "CITATION.cff"],
        ["zizmor", "--offline", "--no-progress", "--config", ".github/zizmor.yml", ".github/workflows"],
    ):
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr


def test_they_do_their_work_by_the_makefiles_targets() -> None:
    called: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
        steps = [step for job in jobs.values() for step in job["steps"]]
        lines = [line for step in steps for line in step.get("run", "").splitlines()]
        assert all(line.startswith(("make ", "git config ")) for line in lines), path.name
        called[path.stem] = {line.split()[1] for line in lines if line.startswith("make ")}
        for step in steps:
            assert "uses" not in step or re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]), step
    assert called == {
        "test": {"test"},
        "publish": {"publish-check", "book"},
        "weekly": {"test", "colab-check", "links", "audit"},
    }
    done = run("make", "-n", *sorted(set().union(*called.values())))
    assert done.returncode == 0, done.stderr


def test_the_address_is_checked_and_rewritten_from_one_place(tmp_path: Path, monkeypatch, capsys) -> None:
    """Also when the repository has another name, and again after that."""
    for path in [ROOT / "_config.yml", *address.places()]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(address, "ROOT", tmp_path)
    old = address.repository()
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/their-book")
    assert address.main(check=True) == 1 and "somebody/their-book" in capsys.readouterr().out
    for new in ("me/faces", "we.two/two-faces"):
        config = tmp_path / "_config.yml"
        config.write_text(config.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        monkeypatch.setenv("GITHUB_REPOSITORY", new)
        assert [*address.left_to_set()] and address.main() == 0 == address.main(check=True)
        assert not [p.name for p in address.places() if old in p.read_text(encoding="utf-8")]
        old = new
