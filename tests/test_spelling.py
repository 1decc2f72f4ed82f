"""No common misspelling in what people read: pages, chapters, docstrings, comments and messages."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("codespell_lib", reason="pip install -e '.[dev]' brings codespell")

ROOT = Path(__file__).resolve().parents[1]
WORDS = Path(__file__).with_name("words.txt")
READ = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "book", "notebooks", "ferlib", "benchmarks", "tests"]
ENDINGS = {".md", ".py", ".ipynb", ".yaml", ".js", ".css", ".bib", ".svg"}


def codespell(*paths: str | Path) -> str:
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words", WORDS, "--check-hidden", *paths]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr.strip() or done.returncode in (0, 65), done.stderr
    return done.stdout.strip()


def test_nothing_is_misspelt(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("Two networks that recieve faces.\n")  # codespell:ignore
    assert "receive" in codespell(tmp_path / "page.md")
    command = ["git", "ls-files", "-co", "--exclude-standard", *READ]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [n for n in listing.splitlines() if Path(n).suffix in ENDINGS and (ROOT / n).is_file()]
    assert codespell(*files) == "", f"mend it, or add the word to {WORDS.name} if it is right"
