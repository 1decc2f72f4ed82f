"""requirements.lock and the ranges of requirements.txt and pyproject.toml say the same."""

from __future__ import annotations

import platform
import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.colab import with_needs
from tests.wheel import ROOT

MACHINE = {
    "sys_platform": "linux",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "implementation_name": "cpython",
    "platform_system": "Linux",
}


def ranges() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    lines += project["dependencies"] + [
        line for extra in project["optional-dependencies"].values() for line in extra
    ]
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


@pytest.mark.parametrize("python", ["3.11.7", "3.12.1", "3.13.0"])
def test_every_range_has_a_locked_version_inside_it(python: str) -> None:
    versions = locked(python)
    for wanted in ranges():
        name = canonicalize_name(wanted.name)
        assert name in versions, f"{wanted} has no locked version: run `make lock`"
        assert wanted.specifier.contains(versions[name]), f"{wanted}, but {versions[name]}: run `make lock`"


def test_nothing_is_locked_that_nothing_asks_for() -> None:
    """As far as it is installed here: what is not, nobody here can ask."""
    versions = locked(platform.python_version())
    needed = with_needs(*map(str, ranges())).keys()
    here = with_needs(*versions).keys()
    assert len(here) > 150 and not (versions.keys() & here) - needed


def test_locked_versions_suit_each_other() -> None:
    """What an installed distribution asks of another is what the lock has, where both are the locked ones."""
    versions = locked(platform.python_version())
    clashes = []
    for name, dist in with_needs(*versions).items():
        if dist.version != versions.get(name):
            continue
        for wanted in map(Requirement, dist.requires or ()):
            other = versions.get(canonicalize_name(wanted.name))
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if applies and (other is None or not wanted.specifier.contains(other, prereleases=True)):
                clashes.append(f"{name} wants {wanted}, locked is {other}")
    assert not clashes


def test_each_version_has_the_checksums_of_its_files() -> None:
    without = [line for line in requirements() if not re.search(r"( --hash=sha256:[0-9a-f]{64})+$", line)]
    assert len(requirements()) > 150 and not without, f"{without[:3]} have none: run `make lock`"


def test_it_names_no_server() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|--(index|extra-index|find-links)|@ ", text)
