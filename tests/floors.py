"""The floors of ferlib, each importing only from those below it: the one list of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: From the top: the modules and packages of a floor, which know nothing of each other, and what it is for.
FLOORS = (
    (("cli", "commands"), "what is typed"),
    (("predict", "export", "doctor", "widgets", "plots"), "pictures in, figures out"),
    (("evaluation", "explain"), "measuring and looking"),
    (("training",), "the loop, recipes, runs"),
    (("weights",), "any file -> a network"),
    (("models", "losses", "data", "synthetic"), "these know nothing of each other"),
    (("detector",), "the faces of a picture"),
    (("style", "images", "runtime"), "the colors; a picture from its file; onnxruntime"),
    (("files", "errors"), "shared by all"),
)
WITHIN_A_FLOOR = {("data", "synthetic"), ("data", "losses")}  # who may import whom all the same
LEVEL = {name: level for level, (names, _) in enumerate(reversed(FLOORS)) for name in names}


def picture() -> str:
    """The floors as documents print them."""
    rows = [("  ".join(names), purpose) for names, purpose in FLOORS]
    width = max(len(names) for names, _ in rows) + 3
    return "\n".join(f"{names:<{width}}{purpose}" for names, purpose in rows)


def imports(folder: Path = ROOT / "ferlib") -> Iterator[tuple[str, str, str]]:
    """Every import of one part of the library by another: (importer, imported, place)."""
    for path in sorted(folder.rglob("*.py")):
        part = path.relative_to(folder).with_suffix("").parts[0]
        if part in ("__init__", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
                if node.module == "ferlib":
                    names = [f"ferlib.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for other in (name.split(".")[1] for name in names if name.startswith("ferlib.")):
                if other not in (part, "__version__"):
                    yield part, other, f"{path.relative_to(folder.parent)}:{node.lineno}"


def upward(edges: Iterator[tuple[str, str, str]]) -> list[str]:
    """The imports that do not lead down."""
    wrong = []
    for part, other, place in edges:
        if LEVEL[other] >= LEVEL[part] and (part, other) not in WITHIN_A_FLOOR:
            wrong.append(f"{place}: {part} imports {other}")
    return wrong


if __name__ == "__main__":
    print(picture())
