"""Everything about the package stands in pyproject.toml; this adds the recorded results to its wheel."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithRecords(build_py):
    """Puts book/results into the wheel as ferlib/results, so that a notebook opened alone can show them.

    An installation with `pip install -e` reads them where they are.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "ferlib" / "results"
            self.mkpath(str(target))
            for record in sorted((ROOT / "book" / "results").glob("*.json")):
                self.copy_file(str(record), str(target / record.name))


setup(cmdclass={"build_py": BuildWithRecords})
