"""The house keeps its own rules: floors, docstrings, one address, no photographs, no strangers' paths."""

import importlib
import inspect
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest

import ferlib
from book.builder import glance
from book.builder.address import repository
from tests import floors

ROOT = Path(__file__).resolve().parents[1]


def modules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages(ferlib.__path__, "ferlib.")]


def tracked() -> list[Path]:
    """Every file that git tracks, or would (new files that are not ignored)."""
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


def test_every_part_imports_only_from_floors_below_its_own() -> None:
    assert floors.upward(floors.imports()) == []


def test_every_part_stands_on_a_floor() -> None:
    paths = (ROOT / "ferlib").iterdir()
    parts = {p.stem for p in paths if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert parts - {"__init__", "__main__"} == floors.LEVEL.keys()


def test_an_arrow_upward_and_a_sideways_one_are_found() -> None:
    down = [("training", "models", "d:4"), ("data", "synthetic", "c:3")]
    wrong = [("data", "training", "a:1"), ("models", "data", "b:2")]
    assert floors.upward(iter([*wrong, *down])) == ["a:1: data imports training", "b:2: models imports data"]


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "book/api.md"])
def test_documents_show_these_floors(document: str) -> None:
    """`python -m tests.floors` prints the picture to paste."""
    assert f"```text\n{floors.picture()}\n```" in (ROOT / document).read_text(encoding="utf-8")


def public_objects() -> list[tuple[str, object]]:
    """Public classes and functions, and the public methods of these classes, by dotted name."""
    found = {}
    for name in modules():
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{value.__module__}.{value.__qualname__}"] = value
            if inspect.isclass(value):
                for method, inner in vars(value).items():
                    inner = getattr(inner, "__func__", inner)
                    if inspect.isfunction(inner) and not method.startswith("_") and inner.__doc__:
                        found[f"{value.__module__}.{value.__qualname__}.{method}"] = inner
    return sorted(found.items())


ARRAY = re.compile(r"(torch\.Tensor|Tensor|np\.ndarray|NDArray\[.+\]|ArrayLike)( \| None)?")
SHAPE = re.compile(r"\((?:[A-Z]\w*|\.{3}|n|\d+)(?:(?:,| [*+x]) ?[^()]+)*,?\)|any shape")


def takes_or_returns_arrays(function: object) -> bool:
    annotations = getattr(function, "__annotations__", {}).values()
    return any(ARRAY.fullmatch(str(annotation)) for annotation in annotations)


def test_public_functions_of_arrays_state_a_shape() -> None:
    """A method's shapes may stand in its class, a network's in its class, one above it, or `forward`."""
    silent, objects = [], dict(public_objects())
    for name, value in objects.items():
        owner = value if inspect.isclass(value) else objects.get(name.rpartition(".")[0])
        classes = [c for c in inspect.getmro(owner) if c.__module__.startswith("ferlib.")] if owner else []
        function = vars(value).get("forward") if inspect.isclass(value) else value
        words = "\n".join(one.__doc__ or "" for one in (value, function, *classes) if one)
        if takes_or_returns_arrays(function) and not SHAPE.search(words):
            silent.append(name)
    assert not silent, f"docstrings without a shape: {silent}"
    bare = [name for name, value in objects.items() if len(inspect.getdoc(value) or "") < 10]
    bare += [n for n in modules() if len((importlib.import_module(n).__doc__ or "").strip()) < 20]
    assert not bare, f"no docstring: {bare}"


def test_no_photograph_and_no_data_set_is_kept_here() -> None:
    """Pictures are few, small and drawn by this repository's own scripts; nothing else is binary."""
    drawn = {"book/static"}
    pictures = re.compile(r"\.(png|jpe?g|gif|webp|bmp|tiff?|ico)")
    binary = re.compile(r"\.(npz|npy|pth?|safetensors|ckpt|pkl|zip|tar|xz|gz|bin)")
    for path in tracked():
        relative = path.relative_to(ROOT)
        # weights that this book trained itself: the page "Try it" needs the one, the report names the others
        kept = relative.parent == Path("book/checkpoints")
        # what the original programs compute: the tests of equality need it; it holds no weights, no faces
        reference = relative.parent == Path("tests/contracts/public") and path.suffix == ".npz"
        shipped = relative == Path("ferlib/pretrained/pocket_ferplus.onnx")
        assert kept or reference or not binary.fullmatch(path.suffix), f"{relative} is data or weights"
        limit = 10_000_000 if kept else 3_000_000 if shipped else 2_000_000
        assert path.stat().st_size < limit, f"{relative} is large"
        if pictures.fullmatch(path.suffix.lower()):
            assert str(relative.parent) in drawn, f"{relative} is a picture outside {drawn}"
            script = ROOT / "book" / "experiments" / f"{path.stem}.py"
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


def test_the_repository_has_one_address() -> None:
    """It stands in _config.yml; `python -m book.builder.address` writes it where else it is needed."""
    for path in tracked():
        if path.suffix in {".md", ".ipynb", ".toml", ".py", ".yml"}:
            text = path.read_text(encoding="utf-8")
            names = set(re.findall(r"github(?:\.com)?/([\w.-]+/fer-book\b)", text))
            assert names <= {repository()}, f"{path.relative_to(ROOT)} has another address: {names}"


def test_the_readme_states_what_the_records_hold() -> None:
    text = glance.README.read_text(encoding="utf-8")
    assert glance.in_readme(text) == text, "run `python -m book.builder.glance`"
