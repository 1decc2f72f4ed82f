"""A run: its folder, its state, how it stops and goes on.

::

    runs/x/recipe.yaml               all choices; load_recipe reads it back
    runs/x/environment.json          versions, device, commit, data, every start of the run with its command
    runs/x/metrics.jsonl             one line per epoch
    runs/x/log.txt                   the same for people, in the words of the Neural Resizer's log
    runs/x/last.safetensors          the weights as they are now (their average, with ema)
    runs/x/best.safetensors          the weights that did best on validation
    runs/x/last.state.safetensors    all that is needed to go on; the other files follow from it

Each file is replaced in one move, ``last.state`` before those that follow from it. A kill between two moves
therefore leaves a state that is whole, and files that the resumed run writes again. ``environment.json`` is
written first of all: a folder with it is a run's, also after a kill in the first epoch. Chapter 6.
"""

from __future__ import annotations

import json
import math
import operator
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from ferlib.errors import FerlibError, printable
from ferlib.files import place, replacing, write_text
from ferlib.training.build import build_average, build_optimizer
from ferlib.training.environment import now, same_data, start_facts, versions
from ferlib.training.recipes import Recipe, RecipeError, recipe_from
from ferlib.weights import CheckpointError, checkpoints, load_network

STATE, LAST, BEST = "last.state.safetensors", "last.safetensors", "best.safetensors"
_FILES = (
    *(STATE, LAST, BEST, "metrics.jsonl", "log.txt"),
    *("environment.json", "recipe.yaml", "test.json"),
)
FORMAT = 2  # of last.state; raised when what stands in it changes
_PLAIN = ("labels", "history", "step", "sums", "seconds", "left_out", "faults")  # attributes of RunState
_RECORD = ("lr", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "seconds")
_FREE = ("name", "on_fault", "save_minutes")  # keys of a recipe that change no number


def runs_folder() -> Path:
    """Where runs are kept: ``$FERLIB_RUNS``, or the folder ``runs`` of the repository the chapters stand in.

    Chapter 6.
    """
    return place("FERLIB_RUNS") or Path.cwd().parent / "runs"


ADVICE = ": lower lr, lengthen warmup or set clip"


class TrainingError(FerlibError):
    """Training that cannot go on (NaN or infinite numbers); the message names where and what to try.

    Attributes:
        batch: The number of the batch in its step.
        advice: What to try, where it is not what NaN is about.
    """

    def __init__(self, message: str, batch: int = 0, advice: str = "") -> None:
        super().__init__(message)
        self.batch, self.advice = batch, advice


class RunState:
    """The network, the optimizer, the averaged weights, and how far the run has come.

    Random numbers need no memory (``ferlib.training.batches``), nor does the learning rate, a function of
    time.

    Attributes:
        labels: Short codes of the labels of the training and the validation set; a resumed run must have the
            same.
        classes: The names of the classes, in the order of the network's outputs.
        history: One record for each finished epoch.
        step: Finished optimizer steps of the epoch under way.
        sums: Of that epoch so far: loss, correct predictions, weight (``Tally``).
        seconds: The time it has taken.
        left_out: Its faces that could not be read.
        faults: Why faces are missing, each once.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, labels: list[str], classes: Sequence[str]) -> None:
        self.model, self.recipe, self.labels, self.classes = model, recipe, labels, list(classes)
        self.optimizer = build_optimizer(recipe, model)
        self.average = build_average(recipe, model)
        self.history: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self._start_epoch()

    def _start_epoch(self) -> None:
        self.step, self.left_out, self.seconds, self.sums = 0, 0, 0.0, [0.0, 0.0, 0.0]

    @property
    def epoch(self) -> int:
        """Number of the epoch under way, from 1."""
        return len(self.history) + 1

    @property
    def position(self) -> str:
        """Where the run is, for messages."""
        return f"epoch {self.epoch}, step {self.step}"

    @property
    def eval_model(self) -> nn.Module:
        """What is evaluated and kept: the averaged weights where there are some."""
        return self.average.module if self.average is not None else self.model

    def note_lost(self, reasons: list[str]) -> int:
        """Print why faces could not be read, each reason once; returns how many there were."""
        for why in map(printable, reasons):
            if not any(line.endswith(f": {why}") for line in self.faults) and len(self.faults) < 1000:
                self.faults.append(f"Left out from epoch {self.epoch} on: {why}")
                print(self.faults[-1], file=sys.stderr)
        return len(reasons)

    def finish_step(self, sums: list[float], left_out: int, seconds: float) -> None:
        """Count a step: its sums and missing faces, and the epoch's time so far."""
        self.step += 1
        self.left_out += left_out
        self.seconds = seconds
        self.sums = [old + new for old, new in zip(self.sums, sums, strict=True)]

    def finish_epoch(self, record: dict[str, Any]) -> None:
        """Add an epoch's record to the history and go on to the next."""
        self.history.append(record)
        self._start_epoch()

    def summary(self) -> dict[str, Any]:
        """What stands beside weights that are kept."""
        record = dict(self.history[-1]) if self.history else {}
        record.pop("seconds", None)  # the clock is no property of the weights
        place = {"epoch": len(self.history), "step": self.step, "record": record}
        return {**place, "recipe": asdict(self.recipe), "classes": self.classes}

    def pack(self) -> dict[str, Any]:
        """Everything but the network's weights, as ``checkpoints.save`` takes it."""
        packed = {key: getattr(self, key) for key in _PLAIN}
        packed |= {"format": FORMAT, "recipe": asdict(self.recipe), "classes": self.classes}
        packed["optimizer"] = self._base_optimizer().state_dict()["state"]
        if self.average is not None:
            packed["average"] = self.average.state_dict()
        return packed

    def restore(self, stored: dict[str, Any], where: str) -> None:
        """Take up what ``checkpoints.load`` found, except the network's weights, which have to fit.

        Raises:
            CheckpointError: Beginning with ``where``, for what is damaged or of another run.
        """
        checkpoints.check(where, stored["model"], self.model)
        try:
            for key in _PLAIN:
                if not isinstance(stored[key], type(getattr(self, key))):
                    raise TypeError(f"{key} is {stored[key]!r}")
            for key in ("classes", "labels"):  # states of before have no class names
                old, new = stored.get(key, getattr(self, key)), getattr(self, key)
                alike = same_data if key == "labels" else operator.eq
                if len(old) != len(new) or not all(map(alike, old, new)):
                    raise CheckpointError(
                        f"{where}: the run began with other faces ({key} were {stored[key]!r:.200}, now "
                        f"{getattr(self, key)!r:.200}): resume it with the data it began with"
                    )
            sums = stored["sums"]
            sound = list(map(type, sums)) == [float] * 3 and math.isfinite(sum(sums))
            if not sound or stored["step"] < 0 or (stored["step"] > 0) != (sums[2] > 0):
                raise ValueError(f"step is {stored['step']}, sums are {sums}")
            for number, record in enumerate(stored["history"], 1):
                if record["epoch"] != number or not all(isinstance(record[key], float) for key in _RECORD):
                    raise ValueError(f"record {number} of the history is not whole")
            base = self._base_optimizer()
            groups = base.state_dict()["param_groups"]  # the recipe's; only moments are taken up
            base.load_state_dict({"state": stored["optimizer"], "param_groups": groups})
            self.optimizer.param_groups = base.param_groups  # SAM shares them
            _check_moments(base.state)
            if self.average is not None:
                self.average.load_state_dict(stored["average"])
        except CheckpointError:
            raise
        except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
            raise CheckpointError(f"{where}: the state of the run is damaged ({error!r})") from error
        for key in _PLAIN:
            setattr(self, key, stored[key])

    def _base_optimizer(self) -> torch.optim.Optimizer:
        return getattr(self.optimizer, "base", self.optimizer)  # SAM remembers nothing of its own


def _check_moments(state: dict[Tensor, dict[str, Any]]) -> None:
    for parameter, moments in state.items():
        for key, value in moments.items():
            shape = torch.Size() if key == "step" else parameter.shape
            fits = isinstance(value, Tensor) and value.shape == shape and not (key == "step" and value < 0)
            if not fits and (key, value) != ("momentum_buffer", None):  # SGD without momentum has None
                raise ValueError(f"{key} is {value!r:.80}, expected a tensor {tuple(shape)}")
    if len({tuple(sorted(moments)) for moments in state.values()}) > 1:
        raise ValueError("the optimizer has different moments for different weights")


class RunFolder:
    """The files of one run; with ``path=None`` nothing is written.

    Inside ``with`` no other process can write there. ``start`` or ``resume`` comes first, and neither writes
    before it has checked everything; then ``maybe_save`` after each step and ``save_epoch`` after each epoch.

    Args:
        path: The folder.
        recipe: What the run follows.
        valid_name: What ``log.txt`` calls the validation set.
        notes: Further files, by name, that are written beside the recipe.
        writes: Whether this process writes; the others of a group only read.

    Raises:
        CheckpointError: Files cannot be written or do not fit, or another process writes there.
    """

    def __init__(
        self,
        path: str | Path | None,
        recipe: Recipe,
        valid_name: str = "validation",
        *,
        notes: Mapping[str, str] | None = None,
        writes: bool = True,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.recipe, self.valid_name, self.notes = recipe, valid_name, notes or {}
        self.writes = writes and path is not None
        self.saved = time.monotonic()

    def __enter__(self) -> RunFolder:
        self._lock = ExitStack()
        if self.writes:
            self._lock.enter_context(only_writer(self.path))
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def start(self, facts: Callable[[], dict[str, Any]], *, overwrite: bool = False) -> None:
        """Start afresh, and write the recipe and the ``facts``."""
        if not self.writes:
            return
        if not overwrite and holds_run(self.path):
            raise CheckpointError(
                f"{self.path} holds a run already: go on with it (resume), choose another folder, or replace "
                "it (overwrite)"
            )
        if not overwrite:
            check_folder(self.path, self.notes)
        with _writing(self.path):
            for name in _FILES:
                if name != "environment.json":  # it says whose folder this is, and is replaced in one move
                    (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        self._write_start({**facts(), "starts": []}, "the beginning")

    def resume(self, source: bool | str | Path, state: RunState, *, overwrite: bool = False) -> None:
        """Put everything back as it was after the last step that was saved, here or in another folder."""
        if source is True:
            if self.path is None:
                raise CheckpointError("resume=True needs a run_dir, or give the checkpoint's path")
            source = self.path
        file = state_file(source)
        moves = self.writes and file.parent.resolve() != self.path.resolve()
        if moves and not overwrite and holds_run(self.path):
            raise CheckpointError(
                f"{self.path} holds another run, which {file} would replace: choose another folder (--out), "
                f"or go on with what is there (--resume {self.path})"
            )
        stored = checkpoints.load(file)
        if "labels" not in stored:
            raise CheckpointError(f"{file.name} holds weights only: a run goes on from its {STATE}")
        found = stored.get("format", 1)
        if not isinstance(found, int) or found != FORMAT:
            raise CheckpointError(
                f"{file.name} has format {found!r:.80}, this version of ferlib reads {FORMAT}: "
                "finish the run with the version it began with, or start afresh"
            )
        try:
            before = asdict(recipe_from(stored.get("recipe"), file.name))
        except RecipeError as error:
            raise CheckpointError(f"{file.name} is damaged or of another version: {error}") from error
        free = _FREE if self.recipe.schedule == "cosine" else (*_FREE, "epochs")  # the cosine depends on them
        for key, value in asdict(self.recipe).items():
            if before[key] != value and key not in free:
                raise CheckpointError(
                    f"{file.name} was trained with {key} {before[key]!r}, the recipe has {value!r}: a run is "
                    "resumed with the recipe it began with (recipe.yaml in its folder)"
                )
        state.restore(stored, file.name)
        load_network(file, state.model)
        if not self.writes:
            return
        if not overwrite:
            check_folder(self.path, self.notes)
        facts = {**versions(), "starts": []}
        lost = OSError, ValueError, TypeError, KeyError, RecursionError
        with suppress(*lost):  # or damaged: what is known without it
            found = json.loads((file.parent / "environment.json").read_text(encoding="utf-8"))
            facts |= found | {"starts": list(found["starts"])}
        self._write_start(facts, state.position)
        if moves and (file.parent / BEST).is_file():
            with _writing(self.path), replacing(self.path / BEST) as copy:  # it may stay the best
                shutil.copyfile(file.parent / BEST, copy)
        checkpoints.save(self.path / LAST, state.eval_model, state.summary())
        self._write_results(state)

    def maybe_save(self, state: RunState, stop: bool = False) -> None:
        """Between steps: save where the last time was ``save_minutes`` ago; after Ctrl-C save and stop.

        Raises:
            KeyboardInterrupt: With one line that names the place and how to go on.
        """
        if stop:
            self.save(state)
            how = f"saved in {self.path}; resume=True goes on" if self.path else "not saved, without run_dir"
            raise KeyboardInterrupt(f"{state.position} of {self.recipe.epochs} epochs: {how}")
        if self.writes and time.monotonic() - self.saved >= 60 * self.recipe.save_minutes:
            self.save(state)

    def save(self, state: RunState) -> None:
        """Write the state, then the weights that follow from it; NaN is a ``TrainingError``, never saved."""
        if not self.writes:
            return
        self._check_there()
        if not all(parameter.isfinite().all() for parameter in state.model.parameters()):
            raise TrainingError(
                f"weights are NaN or infinite at {state.position} and are not saved{self.advice()}"
            )
        checkpoints.save(self.path / STATE, state.model, state.pack())
        checkpoints.save(self.path / LAST, state.eval_model, state.summary())
        self.saved = time.monotonic()

    def save_epoch(self, state: RunState) -> None:
        """After an epoch: the state, then what follows from it."""
        if self.writes:
            self.save(state)
            self._write_results(state)

    def _write_results(self, state: RunState) -> None:
        """``best`` where the last epoch is the best so far, metrics and log."""
        history = state.history
        if history:
            if state.step == 0 and best_epoch(history, self.recipe) == len(history):
                checkpoints.save(self.path / BEST, state.eval_model, state.summary())
            self._write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))
            self._write("log.txt", log_text(history, self.recipe, self.valid_name, state.faults))

    def _write_start(self, facts: dict[str, Any], position: str) -> None:
        facts["starts"].append(start_facts(position))
        facts_text = json.dumps(facts, indent=1) + "\n"
        files = {"environment.json": facts_text, "recipe.yaml": self.recipe.to_yaml(), **self.notes}
        for name, text in files.items():
            self._write(name, text)

    def advice(self) -> str:
        """What to do about NaN; the last state is sound, where there is one."""
        kept = self.path is not None and (self.path / STATE).exists()
        return f"{ADVICE}; the last checkpoint is sound" if kept else ADVICE

    def _check_there(self) -> None:
        if not (self.path / ".lock").exists():
            raise CheckpointError(f"{self.path} was removed while the run was writing there: start it again")

    def _write(self, name: str, text: str) -> None:
        self._check_there()
        with _writing(self.path / name):
            write_text(self.path / name, text)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error}; is the folder writable, has the disk room?"
        ) from error


def state_file(source: str | Path) -> Path:
    """The file a run goes on from, given its folder, its ``last`` weights, or itself; it need not exist."""
    source = Path(source)
    if source.is_dir():
        return source / STATE
    beside = source.with_name(STATE)
    return beside if source.name == LAST and beside.is_file() else source


def holds_run(folder: Path) -> bool:
    """Whether a folder holds weights or the state of a run."""
    return any((folder / name).exists() for name in (STATE, LAST, BEST))


def check_folder(folder: Path, notes: Iterable[str] = ()) -> None:
    """Refuse a folder that is no run's where it holds files that a run, with these notes, would replace.

    Raises:
        CheckpointError: Naming the first such file.
    """
    if (folder / STATE).exists():
        return
    with suppress(OSError, ValueError, RecursionError):
        facts = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        if isinstance(facts, dict) and {"ferlib", "starts"} <= facts.keys():
            return
    for name in (*_FILES, *notes, "tensorboard"):
        if os.path.lexists(folder / name):
            raise CheckpointError(
                f"{folder / name} is there, in a folder that is no run's, and would be replaced: choose "
                "another folder (--out), or replace it (--overwrite)"
            )


def best_epoch(history: list[dict[str, Any]], recipe: Recipe) -> int:
    """The epoch (from 1) chosen on validation; the earliest of equals, never one that is NaN. Chapter 6."""
    key, sign = ("valid_loss", -1) if recipe.select == "loss" else ("valid_accuracy", 1)
    sound = [record for record in history if math.isfinite(record["valid_loss"] + record[key])]
    return max(sound, key=lambda record: sign * record[key])["epoch"] if sound else 0


def log_text(
    history: list[dict[str, Any]], recipe: Recipe, valid_name: str = "validation", faults: Sequence[str] = ()
) -> str:
    """A run as text, four lines an epoch, in the words of the Neural Resizer's log.

    ``faults``, lines about faces that were left out, come first. The last line names the chosen epoch; in the
    released protocol, the highest accuracy of all epochs.

    Source: ``utils/train_model.py:99-110`` (which counts the epoch of its last line from 0; here from 1).
    """
    word = valid_name.capitalize()
    text = "".join(f"{line}\n" for line in faults)
    for record in history:
        for title, key in (("Train", "train"), (word, "valid")):
            text += f"Epoch {record['epoch']}: Avg. {title} Loss: {record[f'{key}_loss']:.4f}\n"
            text += f"Epoch {record['epoch']}: Avg. {title} Acc.: {record[f'{key}_accuracy']:.4f}\n"
        text += "\n"
    if recipe.protocol == "released":
        epoch, title = max(history, key=lambda record: record["valid_accuracy"])["epoch"], "Best"
    else:
        epoch, title = best_epoch(history, recipe), "Chosen"
    reached = next(record for record in history if record["epoch"] == epoch)
    return text + f"{title} {word} Accuracy at Epoch {epoch}, {reached['valid_accuracy']:.4f}\n"


@contextmanager
def only_writer(folder: str | Path) -> Iterator[Path]:
    """Make a run's folder and hold it while inside; a process may enter the folder it holds again.

    A killed process holds nothing: the lock belongs to its open file, not to the file's existence. A folder
    that was made here, and in which nothing was written before an error, is removed.

    Raises:
        CheckpointError: Another process holds the folder (naming that process), or it cannot be written.
    """
    folder = Path(folder)
    file, new = folder / ".lock", not folder.exists()
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.resolve(), is_singleton=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            holder = "another process"
            with suppress(UnicodeDecodeError):
                holder = file.read_text(encoding="utf-8") or holder
            raise CheckpointError(
                f"{folder} is being written by {holder}: wait for it, stop it, or choose another folder"
            ) from None
    try:
        with suppress(OSError):  # on a full disk the lock holds without a name, and saving will fail
            file.write_text(f"process {os.getpid()} on {socket.gethostname()} (since {now()})", "utf-8")
        yield folder
    finally:
        if new and {path.name for path in folder.glob("*")} <= {file.name}:
            with suppress(OSError):
                shutil.rmtree(folder)
        lock.release()


class Interrupt:
    """``with Interrupt() as stop``: Ctrl-C (and SIGTERM, which clusters send) only sets ``stop.asked``.

    A second Ctrl-C stops at once, unless it comes within a second: ``torchrun`` sends its processes another
    one behind the terminal's. A signal that was ignored before stays so, and where signals cannot be caught
    (a thread) nothing changes.
    """

    asked = False
    since = 0.0

    def __enter__(self) -> Interrupt:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            if number == signal.SIGINT and time.monotonic() - self.since > 1:
                raise KeyboardInterrupt("stopped at once; go on from the last checkpoint with resume=True")
            return
        self.asked, self.since = True, time.monotonic()
        os.write(2, b"\nfinishing this step, then saving; once more stops at once\n")
