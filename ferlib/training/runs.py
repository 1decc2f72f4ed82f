"""A run's folder: what was asked for, what was measured, where to go on.

::

    runs/x/recipe.yaml               all choices; load_recipe reads it back
    runs/x/environment.json          versions, device, commit, data, every start of the run with its command
    runs/x/metrics.jsonl             one line per epoch
    runs/x/log.txt                   the same for people, in the words of the Neural Resizer's log
    runs/x/curves.svg                the same as a picture
    runs/x/last.safetensors          the weights as they are now (their average, with ema)
    runs/x/best.safetensors          the weights that did best on validation
    runs/x/last.state.safetensors    all that is needed to go on; the other files follow from it

Each file is replaced in one move, ``last.state`` before those that follow from it. A kill between two moves
therefore leaves a state that is whole, and files that the resumed run writes again. Chapter 6.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ferlib.files import replacing, write_text
from ferlib.training.environment import now, this_start, versions
from ferlib.training.history import best_epoch, log_text
from ferlib.training.lock import only_writer
from ferlib.training.picture import curves_svg
from ferlib.training.recipes import Recipe, RecipeError, recipe_from
from ferlib.training.state import RunState
from ferlib.weights import CheckpointError, checkpoints

__all__ = ["STATE", "RunFolder", "best_epoch", "log_text", "state_file", "versions"]

STATE, LAST, BEST = "last.state.safetensors", "last.safetensors", "best.safetensors"
_FILES = (
    STATE,
    LAST,
    BEST,
    "metrics.jsonl",
    "log.txt",
    "curves.svg",
    "environment.json",
    "recipe.yaml",
    "test.json",
)
_FREE = ("name", "on_fault", "save_minutes")  # keys of a recipe that change no number


class RunFolder:
    """The files of one run; with ``path=None`` nothing is written.

    Inside ``with`` no other process can write there. ``begin`` or ``resume`` first; then ``rest`` after each
    step and ``keep`` after each epoch. ``writes=False`` only reads: the other processes of a group.

    Shape: a :class:`RunState` in. Raises ``CheckpointError`` where files cannot be written or do not fit, and
    where another process writes there. Chapter 6.
    """

    def __init__(
        self, path: str | Path | None, recipe: Recipe, judged_by: str = "validation", *, writes: bool = True
    ) -> None:
        self.path = None if path is None else Path(path)
        self.recipe, self.judged_by = recipe, judged_by
        self.writes = writes and path is not None
        self.saved = time.monotonic()
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> RunFolder:
        self._held = ExitStack()
        if self.writes:
            self._held.enter_context(only_writer(self.path))
            for name in _FILES:  # halves that a killed process has left
                for half in self.path.glob(f".{name}.*"):
                    half.unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        with self._held:
            if self.facts and self.writes:
                self.facts["starts"][-1] |= {"ended": now(), "by": kind.__name__ if kind else "the recipe"}
                with suppress(CheckpointError):  # what counts is saved, or has been told
                    self._write("environment.json", json.dumps(self.facts, indent=1) + "\n")

    def begin(self, facts: Callable[[], dict[str, Any]], *, overwrite: bool = False) -> None:
        """Start afresh: refuse to destroy a run of another recipe, note the recipe and the ``facts``."""
        if not self.writes:
            return
        there = self._stored_recipe()
        if there is not None and not overwrite and (changed := differences(there, self.recipe)):
            key = changed[0]
            raise CheckpointError(
                f"{self.path} holds a run of another recipe ({key} {getattr(there, key, '?')!r}, this one "
                f"{getattr(self.recipe, key)!r}): go on with that one (resume), choose another folder, or "
                "replace it (overwrite)"
            )
        try:
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        except OSError as error:
            raise CheckpointError(f"cannot replace the run in {self.path}: {error}") from error
        self.facts = {**facts(), "starts": []}
        self._note("the beginning")

    def resume(self, source: bool | str | Path, state: RunState) -> None:
        """Put everything back as it was after the last step that was saved, here or in another folder."""
        if source is True:
            if self.path is None:
                raise CheckpointError(
                    "resume=True needs a run_dir to go on from, or give the checkpoint's path"
                )
            source = self.path
        file = state_file(source)
        stored = checkpoints.load(file)
        if "optimiser" not in stored or "labels" not in stored:
            raise CheckpointError(f"{file.name} holds weights only: a run goes on from its {STATE}")
        try:
            self._same_run(recipe_from(stored.get("recipe"), file.name), file)
        except RecipeError as error:
            raise CheckpointError(f"{file.name} is damaged or of another version: {error}") from error
        state.restore(stored, file.name)
        if not self.writes:
            return
        self.facts = _facts(file.parent / "environment.json")
        self._note(state.at())
        if file.parent.resolve() != self.path.resolve() and (file.parent / BEST).is_file():
            try:
                with replacing(self.path / BEST) as copy:  # it may stay the best
                    shutil.copyfile(file.parent / BEST, copy)
            except OSError as error:
                raise CheckpointError(f"cannot write {self.path / BEST}: {error}") from error
        self._derive(state)

    def log(self, wanted: bool) -> Path | None:
        """Where a log for TensorBoard goes, if it is ``wanted``. Shape: -> a path or None."""
        if wanted and self.path is None:
            raise CheckpointError("tensorboard=True needs a run_dir to write its log to")
        return self.path if wanted else None

    def rest(self, state: RunState, stop: bool = False) -> None:
        """Between steps: save where the last time was ``save_minutes`` ago; save and stop where it was asked.

        Raises ``KeyboardInterrupt`` with one line that says how to go on.
        """
        if stop:
            self.save(state)
            at = f"{state.at()} of {self.recipe.epochs} epochs"
            how = (
                f"saved in {self.path}; resume=True goes on"
                if self.path
                else "nothing is kept without run_dir"
            )
            raise KeyboardInterrupt(f"{at}: {how}")
        if self.writes and time.monotonic() - self.saved >= 60 * self.recipe.save_minutes:
            self.save(state)

    def save(self, state: RunState) -> None:
        """Write the state, then the weights that follow from it."""
        if not self.writes:
            return
        checkpoints.save(self.path / STATE, state.model, state.pack())
        checkpoints.save(self.path / LAST, state.judged, state.note())
        self.saved = time.monotonic()

    def keep(self, state: RunState) -> None:
        """After an epoch: ``best`` where it is the best so far, the state, then what follows from it."""
        if not self.writes:
            return
        if best_epoch(state.history, self.recipe) == state.history[-1]["epoch"]:
            checkpoints.save(self.path / BEST, state.judged, state.note())
        self.save(state)
        self._describe(state)

    def _derive(self, state: RunState) -> None:
        checkpoints.save(self.path / LAST, state.judged, state.note())
        self._describe(state)

    def _describe(self, state: RunState) -> None:
        if not state.history:
            return
        self._write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in state.history))
        self._write("log.txt", log_text(state.history, self.recipe, self.judged_by, state.faults))
        self._write("curves.svg", curves_svg(state.history, self.recipe.epochs, self.judged_by))

    def _stored_recipe(self) -> Recipe | None:
        """The recipe of the run that is here; None where there is none."""
        for name in (STATE, BEST, LAST):
            if (self.path / name).exists():
                try:
                    return recipe_from(checkpoints.peek(self.path / name).get("recipe"), name)
                except (CheckpointError, RecipeError):
                    return Recipe(name="one that cannot be read", model="one that cannot be read")
        return None

    def _same_run(self, stored: Recipe, source: Path) -> None:
        changed = differences(stored, self.recipe)
        if self.recipe.schedule != "cosine":  # the whole cosine depends on the number of epochs
            changed = [key for key in changed if key != "epochs"]
        if changed:
            key = changed[0]
            raise CheckpointError(
                f"{source.name} was trained with {key} {getattr(stored, key)!r}, the recipe says "
                f"{getattr(self.recipe, key)!r}: a run is resumed with the recipe it began with (recipe.yaml "
                "in its folder)"
            )

    def _note(self, at: str) -> None:
        self.facts["starts"].append(this_start(at))
        self._write("recipe.yaml", self.recipe.to_yaml())
        self._write("environment.json", json.dumps(self.facts, indent=1) + "\n")

    def _write(self, name: str, text: str) -> None:
        try:
            write_text(self.path / name, text)
        except OSError as error:
            raise CheckpointError(
                f"cannot write {self.path / name}: {error}; is the folder writable, has the disk room?"
            ) from error


def state_file(source: str | Path) -> Path:
    """The file a run goes on from, given its folder, its ``last`` weights, or itself.

    Shape: a path in, a path out (it need not exist). Chapter 6.
    """
    source = Path(source)
    if source.is_dir():
        return source / STATE
    beside = source.with_name(STATE)
    return beside if source.name == LAST and beside.is_file() else source


def differences(before: Recipe, now: Recipe) -> list[str]:
    """Keys in which two recipes ask for different numbers. Shape: two recipes -> sorted by their order."""
    old, new = asdict(before), asdict(now)
    return [key for key in new if old[key] != new[key] and key not in _FREE]


def _facts(path: Path) -> dict[str, Any]:
    """What stands in an environment.json, or what can be said without one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found["starts"], list):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {**versions(), "starts": []}
