"""The house keeps its own rules: floors, docstrings, one address, no photographs, no strangers' paths."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

import ferlib
from book.builder import glance

ROOT = Path(__file__).resolve().parents[1]
# A module may import only from floors below its own.
FLOORS = {
    "dark": 0, "home": 0, "style": 1, "data": 1, "models": 1, "losses": 1,
    "training": 2, "evaluation": 3, "explain": 4, "plots": 4, "drawing": 4,
    "export": 4, "pictures": 5, "forest": 4,
    "widgets": 5, "doctor": 5, "commands": 6, "cli": 7, "__main__": 8,
}  # fmt: skip


def modules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages(ferlib.__path__, "ferlib.")]


def tracked() -> list[Path]:
    """Every file that git tracks, or would (new files that are not ignored)."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_module_imports_upward() -> None:
    offences = []
    for path in sorted((ROOT / "ferlib").rglob("*.py")):
        parts = path.relative_to(ROOT / "ferlib").with_suffix("").parts
        if parts[0] == "__init__":
            continue
        floor = FLOORS[parts[0]]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
                if node.module == "ferlib":
                    names = [f"ferlib.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                other = name.split(".")[1] if name.startswith("ferlib.") else parts[0]
                if other != parts[0] and FLOORS.get(other, 0) >= floor:
                    offences.append(f"{path.relative_to(ROOT)}:{node.lineno} imports {name}")
    assert not offences


def test_modules_are_small_enough_to_read() -> None:
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in (ROOT / "ferlib").rglob("*.py")}
    assert not {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n > 300}


def public_objects() -> list[tuple[str, object]]:
    found = {}
    for name in modules():
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return sorted(found.items())


def test_every_package_names_what_is_public() -> None:
    for package in ("data", "models", "losses", "training", "evaluation", "explain", "plots"):
        assert importlib.import_module(f"ferlib.{package}").__all__, package


def test_every_public_name_has_a_docstring() -> None:
    summaries = {name: (inspect.getdoc(value) or "").split("\n\n")[0] for name, value in public_objects()}
    assert not [name for name, summary in summaries.items() if len(summary) < 20]


def test_every_module_says_what_it_is() -> None:
    assert not [n for n in modules() if len((importlib.import_module(n).__doc__ or "").strip()) < 20]


def test_no_photograph_and_no_data_set_is_kept_here() -> None:
    """Pictures are few, small and drawn by this repository's own scripts; nothing else is binary."""
    drawn = {"book/static"}
    pictures = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ico"}
    binary = {
        ".npz",
        ".npy",
        ".pt",
        ".pth",
        ".safetensors",
        ".ckpt",
        ".pkl",
        ".zip",
        ".tar",
        ".xz",
        ".gz",
        ".bin",
    }
    for path in tracked():
        relative = path.relative_to(ROOT)
        # weights that this book trained itself: the page "Try it" needs the one, the report names the others
        kept = relative.parent == Path("book/checkpoints")
        # what the original programs compute: the tests of equality need it; it holds no weights, no faces
        reference = relative.parent == Path("tests/contracts/public") and path.suffix == ".npz"
        shipped = relative == Path("ferlib/pretrained/pocket_ferplus.onnx")
        assert kept or reference or path.suffix.lower() not in binary, f"{relative} is data or weights"
        limit = 10_000_000 if kept else 3_000_000 if shipped else 2_000_000
        assert path.stat().st_size < limit, f"{relative} is large"
        if path.suffix.lower() in pictures:
            assert str(relative.parent) in drawn, f"{relative} is a picture outside {drawn}"
            script = ROOT / "book" / "records" / f"{path.stem}.py"
            assert script.exists(), f"{relative}: no script {script.relative_to(ROOT)} that draws it"


def test_no_path_of_one_machine_and_no_secret_helper_is_named() -> None:
    machine = re.compile(r"(?<![\w/.])/(?:work|root|farm|home/\w+|Users/\w+)/")
    offences = []
    for path in tracked():
        if path.suffix in {".py", ".md", ".ipynb", ".yml", ".yaml", ".toml", ".txt", ".json", ".css", ""}:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                if path.name != "test_house.py" and machine.search(line):
                    offences.append(f"{path.relative_to(ROOT)}:{number}")
    assert not offences


def address() -> str:
    line = re.search(r"^  url: (\S+)$", (ROOT / "_config.yml").read_text(), re.M)
    assert line, "_config.yml names no repository"
    return line[1]


def test_the_repository_has_one_address() -> None:
    """It stands in _config.yml; `python -m book.builder.address` writes it where else it is needed."""
    owner = address().removeprefix("https://github.com/")
    for path in tracked():
        if path.suffix in {".md", ".ipynb", ".toml", ".py", ".yml"}:
            for name in re.findall(
                r"github(?:\.com)?/([\w.-]+/fer-book\b)", path.read_text(encoding="utf-8")
            ):
                assert name == owner, f"{path.relative_to(ROOT)} has another address: {name}"


def test_the_readme_states_what_the_records_hold() -> None:
    text = glance.README.read_text(encoding="utf-8")
    assert glance.in_readme(text) == text, "run `python -m book.builder.glance`"


def test_the_requirements_bring_what_the_package_asks_for_and_its_export() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {line.split("#")[0].strip() for line in lines} - {""}
    assert {*project["dependencies"], *project["optional-dependencies"]["export"]} <= required
