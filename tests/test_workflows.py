"""The workflow files and the citation file are valid and safe, and call what the Makefile has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from book.builder import address, publish
from tests.wheel import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name(command[0])
    return subprocess.run([str(program), *command[1:]], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", WORKFLOWS), ("citation-file-format", [ROOT / "CITATION.cff"])],
    ids=["workflows", "citation"],
)
def test_they_follow_their_published_schema(schema: str, files: list[Path]) -> None:
    done = run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_workflow_would_be_found(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text(encoding="utf-8").replace("runs-on:", "run-on:"))
    assert run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(wrong)).returncode == 1


def test_they_are_safe() -> None:
    """Zizmor, offline: no secrets left on disk, no more rights than needed, no text run as a command."""
    done = run("zizmor", "--offline", "--no-progress", "--config", ".github/zizmor.yml", ".github/workflows")
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
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1")), step
    assert called == {
        "test": {"test"},
        "publish": {"publish-check", "book"},
        "weekly": {"test", "colab-check", "links", "audit"},
    }
    for target in sorted(set().union(*called.values())):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_they_start_when_they_should() -> None:
    starts = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))[True] for path in WORKFLOWS}
    assert "pull_request" in starts["test"] and "pull_request_target" not in str(starts)
    assert starts["publish"]["push"] == {"branches": ["main"]}
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", starts["weekly"]["schedule"][0]["cron"]), "not once a week"


def test_publish_check_knows_whose_repository_it_is(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", address.repository())
    assert publish.main() == 0, capsys.readouterr().out
    told = capsys.readouterr().out
    assert "SET" not in told and "Source: GitHub Actions" in told and "no secrets" in told
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/their-book")
    assert publish.main() == 1
    told = capsys.readouterr().out
    assert "but this is somebody/their-book" in told and "python -m book.builder.address" in told


def test_the_address_is_rewritten_everywhere_from_one_place(tmp_path: Path, monkeypatch) -> None:
    """Also when the repository has another name, and again after that."""
    for path in [ROOT / "_config.yml", *address.places()]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    for module in (address, publish):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(publish, "chapters", lambda: sorted((tmp_path / "notebooks").glob("[0-9]*.ipynb")))
    old = address.repository()
    for new in ("me/faces", "we.two/two-faces"):
        config = tmp_path / "_config.yml"
        config.write_text(config.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
        monkeypatch.setenv("GITHUB_REPOSITORY", new)
        assert not all(finding.ok for finding in publish.look_at_address())
        assert address.main() == 0
        assert not [finding for finding in publish.look_at_address() if not finding.ok]
        assert not [p.name for p in address.places() if old in p.read_text(encoding="utf-8")]
        old = new
