"""What the study's second part is made of, counted before anything is trained.

    FERLIB_DATA=/path/to/FERPlus python book/records/study_btn/plan.py

Writes ``book/results/study_btn_plan.json``: networks, runs, multiply-adds, bytes of the maps. Training
counts three times the multiply-adds of looking at a face; the frozen branches look once.
"""

from __future__ import annotations

from functools import partial

import beside  # noqa: F401
import maps
import parts
import torch
from arms import POOL, SEEDS, SHARE, Job, queue
from faces import held
from torch.utils.flop_counter import FlopCounterMode

from ferlib.evaluation import ResultRecord, about
from ferlib.models import part_costs
from ferlib.models.dlib_face import INPUT_SIZE, DlibFaceNet
from ferlib.models.mobilefacenet import MobileFaceNet


def network(job: Job) -> dict[str, float]:
    """Parameters that learn, and multiply-adds of one face without the frozen branches."""
    family = "pretrained" if job.family == "pretrained" else "small"
    model = parts.make(family, 0, **job.options)
    parameters = sum(p.numel() for p in model.parameters())
    if family == "pretrained":  # zeros of the maps' shapes in their place
        empty = [[torch.zeros(1, c, s, s) for c, s in levels] for levels in maps.LEVELS.values()]
        model.encoder.frozen = lambda images: empty
    image = torch.zeros(1, 3, 48, 48) if family == "small" else torch.zeros(1, 3, 2, 2)
    return {"parameters": parameters, "multiply-adds a face": spent(model, image)}


def spent(model: torch.nn.Module, image: torch.Tensor) -> int:
    """Multiply-adds of one picture."""
    return sum(part.multiply_adds for part in part_costs(model, image, repeats=0))


def branches() -> dict[str, dict[str, float]]:
    """What the two frozen branches cost a face, once."""
    face, marks, found = DlibFaceNet(), MobileFaceNet(head=False), {}
    for name, look, side in (
        ("face", partial(face.maps, last="conv256_2"), INPUT_SIZE),
        ("landmarks", marks.features, maps.LANDMARK_SIDE),
    ):
        with torch.no_grad(), FlopCounterMode(display=False) as count:
            look(torch.zeros(1, 3, side, side))
        found[name] = {"multiply-adds a face": count.get_total_flops() // 2, "numbers kept": maps.width(name)}
    return found


def kept(train: int, valid: int) -> dict[str, int]:
    """Bytes of the maps by job."""
    found = {}
    for job in queue():
        if job.family == "maps":
            names = maps.SETS if job.options["variant"] == "pretrained" else maps.SETS[:2]
            count = {"train": train}
            found[job.arm] = sum(maps.size(n, job.options["part"], count.get(n, valid)) for n in names)
    return found


def main() -> None:
    train, valid = held("train"), held("valid")
    found: dict[str, dict[str, float]] = {}
    questions: dict[str, dict[str, float]] = {}
    for job in (job for job in queue() if job.family != "maps"):
        family = "small" if job.family == "drawn" else job.family
        arm = ", ".join([family, *(f"{k} {v}" for k, v in job.options.items())])
        if arm not in found:
            found[arm] = network(job)
        run = (
            3
            * (SHARE[job.family] or len(train))
            * job.recipe().epochs
            * found[arm]["multiply-adds a face"]
            / 1e12
        )
        one = questions.setdefault(job.question, {"runs": 0, "multiply-adds, million million": 0.0})
        one["runs"] += 1
        one["multiply-adds, million million"] += run
    for name, one in questions.items():
        print(f"{name:24s}", {key: round(value, 1) for key, value in one.items()})
    files = kept(POOL, len(valid))
    record = ResultRecord(
        name="study_btn_plan", what="The study's second part as planned: networks, runs, multiply-adds, maps",
        data=about(valid, "valid") | {"name": "FER+"}, classes=list(valid.classes),
        settings={"seeds": list(SEEDS)},
        extra={"faces a run learns from": {name: count or len(train) for name, count in SHARE.items()},
               "faces with maps": POOL, "networks": found, "questions": questions,
               "frozen branches": branches(),
               "runs": sum(one["runs"] for one in questions.values()),
               "multiply-adds, million million": sum(one["multiply-adds, million million"]
                                                     for one in questions.values()),
               "bytes of maps": files, "maps, GB": round(sum(files.values()) / 1e9, 1),
               "training faces": len(train),
               "by class, validation": valid.class_counts().tolist()},
        command="FERLIB_DATA=/path/to/FERPlus python book/records/study_btn/plan.py",
    )  # fmt: skip
    print(record.save())


if __name__ == "__main__":
    main()
