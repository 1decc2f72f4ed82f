"""requirements.lock and the ranges of requirements.txt and pyproject.toml say the same."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.wheel import ROOT

MACHINE = {"sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"}
MACHINE |= {"implementation_name": "cpython", "platform_system": "Linux"}


def ranges() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    lines += sum(project["optional-dependencies"].values(), project["dependencies"])
    return [Requirement(line) for line in lines if line]


def requirements() -> list[str]:
    """The lock's entries, each with its hashes on one line."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n    ", "")
    return [line for line in text.splitlines() if not line.startswith("#")]


def locked(python: str) -> dict[str, str]:
    """{name: version} of what the lock gives one version of Python on Linux."""
    machine = {**MACHINE, "python_version": python.rpartition(".")[0], "python_full_version": python}
    found: dict[str, str] = {}
    for line in requirements():
        entry = Requirement(line.split(" --hash")[0])
        if entry.marker is None or entry.marker.evaluate(machine):
            assert entry.name not in found, f"{entry.name} has two versions for Python {python}"
            version = re.fullmatch(r"==([\w.+!-]+)", str(entry.specifier))
            assert version, f"not pinned: {line}"
            found[canonicalize_name(entry.name)] = version[1]
    return found


def test_each_version_has_the_checksums_of_its_files_and_no_server() -> None:
    without = [line for line in requirements() if not re.search(r"( --hash=sha256:[0-9a-f]{64})+$", line)]
    assert len(requirements()) > 150 and not without, f"{without[:3]} have none: run `make lock`"
    assert not re.search(r"://|--(index|extra-index|find-links)|@ ", "\n".join(requirements()))


@pytest.mark.parametrize("python", ["3.11.7", "3.13.0"])
def test_every_range_has_a_locked_version_inside_it(python: str) -> None:
    versions = locked(python)
    for wanted in ranges():
        name = canonicalize_name(wanted.name)
        assert name in versions, f"{wanted} has no locked version: run `make lock`"
        assert wanted.specifier.contains(versions[name]), f"{wanted}, but {versions[name]}: run `make lock`"
