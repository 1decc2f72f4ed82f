"""What the study is made of, counted before anything is trained: networks, runs, multiply-adds.

    FERLIB_DATA=/path/to/FERPlus python book/records/study/plan.py

Writes ``book/results/study_plan.json``. Training counts three times the multiply-adds of looking at a face.
"""

from __future__ import annotations

import networks
import torch
from faces import held
from jobs import SEEDS, Job, queue

from ferlib.evaluation import ResultRecord, about
from ferlib.models import part_costs


def cost(job: Job) -> tuple[int, int]:
    """Parameters, and multiply-adds of one face: a job in, two numbers out."""
    model, side = networks.make(job.network, 0, **job.options), job.recipe().image_size or 48
    parts = part_costs(model, torch.zeros(1, 3, side, side), repeats=0)
    return sum(p.numel() for p in model.parameters()), sum(part.multiply_adds for part in parts)


def main() -> None:
    train, valid = held("train"), held("valid")
    found: dict[str, dict[str, float]] = {}
    questions: dict[str, dict[str, float]] = {}
    for job in queue():
        arm = f"{job.network}, {', '.join(f'{k} {v}' for k, v in job.options.items())}".rstrip(", ")
        if arm not in found:
            parameters, multiply_adds = cost(job)
            found[arm] = {"parameters": parameters, "multiply-adds a face": multiply_adds}
        seen = (job.faces or len(train)) * job.recipe().epochs
        run = 3 * seen * found[arm]["multiply-adds a face"] / 1e12
        one = questions.setdefault(job.question, {"runs": 0, "multiply-adds, million million": 0.0})
        one["runs"] += 1
        one["multiply-adds, million million"] += run
        one["smallest run"] = min(run, one.get("smallest run", run))
        one["largest run"] = max(run, one.get("largest run", run))
    for name, one in questions.items():
        print(f"{name:10s}", {key: round(value, 1) for key, value in one.items()})
    total = sum(one["multiply-adds, million million"] for one in questions.values())
    record = ResultRecord(
        name="study_plan", what="The study on real faces as planned: networks, runs, multiply-adds",
        data=about(valid, "valid") | {"name": "FER+"},
        classes=list(valid.classes), settings={"seeds": list(SEEDS)},
        extra={"networks": found, "questions": questions, "runs": len(queue()),
               "multiply-adds, million million": total, "training faces": len(train),
               "by class, validation": valid.class_counts().tolist()},
        command="FERLIB_DATA=/path/to/FERPlus python book/records/study/plan.py",
    )  # fmt: skip
    print(record.save())


if __name__ == "__main__":
    main()
