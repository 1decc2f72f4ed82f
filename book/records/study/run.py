"""Do the study's runs, one after the other; each finished run leaves one line in ``rows.jsonl``.

    FERLIB_DATA=/path/to/FERPlus python book/records/study/run.py                  # all that is missing
    FERLIB_DATA=/path/to/FERPlus python book/records/study/run.py --list           # what is left to do
    FERLIB_DATA=/path/to/FERPlus python book/records/study/run.py --only "losses | PDLS" --until 17:15

A run that has its line is not done again. A queue that was stopped goes on with the run it was in, from its
last checkpoint in ``--runs``. Two of these commands may work at the same time. Weights that others build on
stay there; what else a run wrote goes when its line is kept.

All runs of a question have to come from the same training code, or their random draws are not the same and
nothing is paired: the rows say which it was (``source``), and ``summarise.py`` refuses to mix. While
``ferlib`` is being worked on, run from a copy: ``git worktree add --detach COPY`` and ``PYTHONPATH=COPY``.

``python book/records/study/summarise.py`` makes the records of ``book/results`` from the lines.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import faces as study_faces
import measures
import networks
import torch
import worker
from jobs import BASE, Job, queue
from worker import folder

from ferlib.models import part_costs
from ferlib.training import build_criterion, fit
from ferlib.weights import checkpoints

ROWS = Path(__file__).with_name("rows.jsonl")


@cache
def split(name: str) -> study_faces.Held:
    """The faces of a split, read once."""
    return study_faces.held(name)


@cache
def view(name: str) -> study_faces.Held:
    """Validation as it is (``upright``) or with every face turned."""
    return split("valid") if name == "upright" else study_faces.turned(split("valid"))


def train(job: Job, runs: Path) -> dict[str, Any]:
    """One run, from fresh weights (or a pretrained backbone) to its row."""
    recipe, valid = job.recipe(), split("valid")
    learned = study_faces.share(
        split("train"), job.faces, job.seed if job.drawn is None else job.drawn, job.after
    )
    learned = study_faces.mislabelled(learned, job.noise, job.seed) if job.noise else learned
    model = networks.make(job.network, job.seed, **job.options)
    if job.backbone:
        start = {"resizer": "any rule", "spatial_transformer": False}
        donor = networks.make(job.network, job.seed, **start)
        checkpoints.load(folder(job.backbone, runs) / "last.safetensors", donor)
        networks.take_over(model, donor, job.seed)
    prior = study_faces.prior(job.prior)
    criterion = build_criterion(recipe, prior=prior)
    first, second = (valid.some(half) for half in study_faces.halves(valid))
    hard = build_criterion(recipe.but(targets="label"), prior=prior)

    def after_epoch(candidate: torch.nn.Module, record: dict[str, Any]) -> None:
        """What the second half says; in the released way, too, where that is the question."""
        logits = measures.answers(candidate, second, recipe)
        record["second"] = (logits.argmax(1) == second.labels).double().mean().item()
        if job.released:
            for name, half in (("first", first), ("second", second)):
                record[f"released {name}"] = measures.as_released(
                    candidate, half, hard, recipe, record["epoch"]
                )

    clock = worker.Clock()
    place = folder(job.key, runs)
    resume = (place / "last.safetensors").is_file()
    history = fit(
        model, criterion, learned, first, recipe, run_dir=place, resume=resume, progress=None, device="cpu",
        on_epoch=after_epoch,
    )  # fmt: skip
    names = ["upright", "turned"] if job.question == "resizers" else ["upright"]
    judged = {name: measures.answers(model, view(name), recipe) for name in names}
    side = recipe.image_size or valid.images.shape[-1]
    costs = part_costs(model, torch.zeros(1, 3, side, side), repeats=0)
    return {
        "key": job.key, "question": job.question, "arm": job.arm, "seed": job.seed,
        "network": job.network, "options": job.options, "recipe": worker.changes(recipe, BASE),
        "prior": job.prior,
        "faces": len(learned), "after": job.after, "noise": job.noise,
        "history": worker.curves(history),
        "final": {name: measures.final(logits, valid.labels) for name, logits in judged.items()},
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply-adds": sum(cost.multiply_adds for cost in costs),
        **clock.read(),
        "resumed": resume, "data": study_faces.fingerprint(valid), "versions": worker.versions(),
        "date": worker.now(),
        "command": f'FERLIB_DATA=/path/to/FERPlus python book/records/study/run.py --only "{job.key}"',
    }  # fmt: skip


def ready(job: Job, done: dict[str, Any]) -> bool:
    """Whether what a run builds on is there."""
    return not job.backbone or job.backbone in done


def tell(row: dict[str, Any]) -> str:
    """A finished run in a word."""
    return f"{100 * row['final']['upright']['accuracy']:.2f} %"


def work(jobs: list[Job], runs: Path) -> None:
    """Every job that has no row and that nobody else is at."""
    worker.work(jobs, ROWS, runs, train, ready, tell)


if __name__ == "__main__":
    worker.command(__doc__, queue(), ROWS, Path("runs") / "study", work)
