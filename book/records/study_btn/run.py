"""Do the runs of the study's second part; each finished run leaves one line in ``rows.jsonl``.

    FERLIB_DATA=/path/to/FERPlus FERLIB_WEIGHTS=/path/to/weights \\
        python book/records/study_btn/run.py                       # all that is missing
    python book/records/study_btn/run.py --list                    # what is left to do
    python book/records/study_btn/run.py --only "noise | small" --until 17:15

The folder of weights holds ``face_recognition_dlib.safetensors`` and
``mobilefacenet_landmarks68.safetensors`` (or what ``ferlib.models.PRETRAINED`` names). The first jobs compute
maps once, into ``runs/study_btn_maps`` or the folder ``FERLIB_MAPS``; what builds on maps waits for them.
Everything else is as in the first part (``study/run.py``): a run with a line is not done again, a stopped one
goes on from its last checkpoint, two of these commands may work at the same time (with
``OMP_NUM_THREADS=1``), and all runs of a question have to come from one source.

``python book/records/study_btn/summarise.py`` makes the records of ``book/results`` from the lines.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import beside
import faces as study_faces
import maps
import parts
import torch
import views
import worker
from arms import BASE, POOL, SHARE, Job, queue
from torch import nn

from ferlib.data import SyntheticFaces
from ferlib.data.base import FaceDataset
from ferlib.data.faces import KeptFaces
from ferlib.data.transforms import model_input
from ferlib.evaluation import Altered
from ferlib.models import part_costs
from ferlib.training import build_criterion, fit

ROWS = Path(__file__).with_name("rows.jsonl")
POSES, DRAWN = ("pose 2", "pose 4"), 12288
SOURCES = [
    *(Path(__file__).with_name(f"{name}.py") for name in ("arms", "maps", "parts", "run", "views")),
    *(Path(study_faces.__file__).with_name(f"{name}.py") for name in ("faces", "measures")),
]


@cache
def split(name: str) -> study_faces.Held:
    """Faces of FER+ (``train``, ``valid``), or drawn ones (``drawn``, ``drawn test``), read once."""
    if not name.startswith("drawn"):
        return study_faces.held(name)
    faces = drawn_test() if name == "drawn test" else drawn(DRAWN, seed=0)
    batch = faces.batch(range(len(faces)))
    return study_faces.Held(batch["image"], batch["label"], batch["votes"], faces.classes)


def drawn(count: int, seed: int) -> SyntheticFaces:
    """Drawn faces framed as FER+ frames them."""
    return SyntheticFaces(count, size=48, seed=seed, channels=1, framing="ferplus")


def drawn_test() -> SyntheticFaces:
    """The drawn faces that are judged, and turned."""
    return drawn(1024, seed=1)


@cache
def pool() -> study_faces.Held:
    """The training faces whose maps are kept."""
    return study_faces.share(split("train"), POOL, seed=0)


@cache
def hard(kind: str) -> FaceDataset:
    """Faces made harder to read: validation ("occlusion 3"), or the drawn ones ("pose 2")."""
    what, severity = kind.rsplit(" ", 1)
    faces = drawn_test() if what == "pose" else split("valid")
    return KeptFaces(Altered(faces, what, int(severity)))


def learned(job: Job) -> study_faces.Held:
    """What a run learns from."""
    if job.family == "pretrained":
        faces = maps.numbered("train", pool())
    else:
        faces = split("drawn" if job.family == "drawn" else "train")
    faces = study_faces.share(faces, SHARE[job.family], job.seed)
    return study_faces.mislabelled(faces, job.noise, job.seed) if job.noise else faces


def judged(job: Job) -> dict[str, FaceDataset]:
    """The sets a run is judged on by their names; the first is the faces as they are."""
    if job.family == "drawn":
        return {views.UPRIGHT: split("drawn test"), **{kind: hard(kind) for kind in POSES}}
    if job.family == "small":
        return {views.UPRIGHT: split("valid"), **{kind: hard(kind) for kind in maps.SETS[2:]}}
    names = dict(zip((views.UPRIGHT, *maps.SETS[2:]), maps.SETS[1:], strict=True))
    return {name: maps.numbered(kept, split("valid")) for name, kept in names.items()}


def costs(model: nn.Module, faces: FaceDataset) -> int:
    """Multiply-adds of one face, without what was computed once."""
    images = model_input(faces.batch(range(1))["image"])
    return sum(cost.multiply_adds for cost in part_costs(model, images, repeats=0))


def train(job: Job, runs: Path) -> dict[str, Any]:
    """One job to its row: maps, or a run from fresh weights."""
    clock = worker.Clock()
    if job.family == "maps":
        kept = keep_maps(job)
        return common(job) | kept | clock.read()
    recipe, faces, sets = job.recipe(), learned(job), judged(job)
    model = parts.make("small" if job.family == "drawn" else job.family, job.seed, **job.options)
    valid = sets[views.UPRIGHT]
    half, _ = study_faces.halves(valid)
    place = worker.folder(job.key, runs)
    resume = (place / "last.safetensors").is_file()
    history = fit(
        model, build_criterion(recipe), faces, valid.some(half), recipe, run_dir=place, resume=resume,
        progress=None, device="cpu",
    )  # fmt: skip
    full, reference = job.full or job.family == "drawn", torch.arange(min(views.REFERENCE, len(faces)))
    final, numbers = views.judge(model, sets, recipe, faces.some(reference), full)
    return {
        **common(job), "network": job.family, "options": job.options, "noise": job.noise,
        "recipe": worker.changes(recipe, BASE), "faces": len(faces), "prior": "",
        "history": worker.curves(history), "final": final, "measured": numbers,
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply-adds": costs(model, valid), "resumed": resume, **clock.read(),
    }  # fmt: skip


def common(job: Job) -> dict[str, Any]:
    """What every row says."""
    return {
        "key": job.key, "question": job.question, "arm": job.arm, "seed": job.seed,
        "data": study_faces.fingerprint(split("valid")), "versions": worker.versions(*SOURCES),
        "date": worker.now(),
        "command": "FERLIB_DATA=/path/to/FERPlus FERLIB_WEIGHTS=/path/to/weights "
        f'python book/records/study_btn/run.py --only "{job.key}"',
    }  # fmt: skip


def keep_maps(job: Job) -> dict[str, Any]:
    """Compute maps and say how many bytes they are."""
    sets: dict[str, FaceDataset] = {"train": pool(), "valid": split("valid")}
    if job.options["variant"] == "pretrained":
        sets |= {kind: hard(kind) for kind in maps.SETS[2:]}
    return {"options": job.options, "bytes": maps.make(**job.options, sets=sets)}


def ready(job: Job, done: dict[str, Any]) -> bool:
    """Whether the maps a run reads are there."""
    return all(key in done for key in job.needs())


def tell(row: dict[str, Any]) -> str:
    """A finished run in a word."""
    if "bytes" in row:
        return f"{sum(row['bytes'].values()) / 1e9:.2f} GB"
    told = [row["final"].get(views.view(views.UPRIGHT, answer)) for answer in (views.OWN, "bt")]
    return " / ".join(f"{100 * found['accuracy']:.2f} %" for found in told if found)


def work(jobs: list[Job], runs: Path) -> None:
    """Every job that has no row, that nobody else is at, and whose maps are there."""
    lost = [job.key for job in queue() if job.family == "maps" and job.key in worker.rows(ROWS)
            and not maps.place("valid", **job.options).is_file()]  # fmt: skip
    if lost:
        raise SystemExit(
            f"{maps.FOLDER} lacks the files of {', '.join(lost)}, which have a line in {ROWS.name}: "
            "take these lines out, or name the folder with FERLIB_MAPS"
        )
    worker.work(jobs, ROWS, runs, train, ready, tell)


if __name__ == "__main__":
    worker.command(__doc__, queue(), ROWS, beside.REPOSITORY / "runs" / "study_btn", work)
