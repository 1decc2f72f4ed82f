"""The network of the page "Try it": export it, measure it, write its card. All from one checkpoint.

    python -m book.experiments.pocket --checkpoint runs/pocket-ferplus/best.safetensors --data FERPLUS

Writes the model that the package ships (``ferlib/pretrained/pocket_ferplus.onnx``, its facts with their
SHA-256 in ``pocket_ferplus.json``, ``MODEL_CARD.md``) and ``book/results/pocket_ferplus.json``. Scores,
recalls and calibration are those of the ONNX file on FER+'s validation split, which also chose the epoch; the
robustness suite runs on at most 1,000 of these faces; the time a face takes is processor time of onnxruntime
on one core. The temperature in the file is fitted on all validation faces; what it is worth is measured with
one fitted on one half and measured on the other.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import ferlib
from book.experiments import script
from book.experiments.model_card import card
from ferlib.commands.networks import Network
from ferlib.data import FERPlus
from ferlib.data.base import FaceDataset
from ferlib.data.faces import KeptFaces
from ferlib.data.labels import EMOTIONS_FERPLUS
from ferlib.data.transforms import to_float
from ferlib.evaluation import (
    Interval,
    ResultRecord,
    evaluate,
    fit_temperature,
    predict,
    reliability,
    robustness,
    scores,
    split_faces,
)
from ferlib.evaluation.intervals import percentiles
from ferlib.export import export_onnx, parity
from ferlib.files import write_text
from ferlib.runtime import load_runtime, open_session
from ferlib.training import versions

NAME = "pocket_ferplus"
FOLDER = Path(ferlib.__file__).parent / "pretrained"
ECE = "expected calibration error"
RESAMPLES = 1000
SUITE, SEVERITIES = 1000, (1, 3, 5)


def arguments() -> argparse.Namespace:
    parser = script.parser(__doc__, data=True)
    parser.add_argument("--checkpoint", required=True, help="best.safetensors of a pocket-ferplus run")
    parser.add_argument("--faces", type=int, help="only so many of the faces, where time is short")
    return parser.parse_args()


def answers(path: Path, faces: FaceDataset) -> tuple[Tensor, Tensor]:
    """The file's logits, already divided by its temperature, and the labels: (N, 8), (N,)."""
    session = open_session(path)
    parts = [
        session.run(["logits"], {"face": to_float(faces.batch(rows)["image"]).numpy()})[0]
        for rows in torch.arange(len(faces)).split(64)
    ]
    return torch.from_numpy(np.concatenate(parts)), torch.as_tensor(faces.labels)


def calibration(labels: Tensor, logits: Tensor) -> tuple[dict[str, Interval], dict]:
    """Calibration error before and after a temperature, on faces that had no part in fitting it."""
    fitted, judged = split_faces(labels, 0.5, seed=0)
    temperature = fit_temperature(logits[fitted], labels[fitted])
    numbers, extra = {}, {"temperature of one half": temperature, "faces": [len(fitted), len(judged)]}
    for when, scale in (("before", 1.0), ("after", temperature)):
        y, z = labels[judged], logits[judged] / scale
        found = scores(y, z, EMOTIONS_FERPLUS, resamples=RESAMPLES)
        numbers[f"calibration error {when} temperature"] = found[ECE]
        bins = reliability(y, z, resamples=RESAMPLES)
        extra[when] = {"reliability": [asdict(b) for b in bins]}
    return numbers, extra


def milliseconds(path: Path, face: Tensor, runs: int = 200) -> Interval:
    """Processor time of one face on one core: the median and the middle 95 % of the runs."""
    session = open_session(path)
    feed, taken = {"face": face.numpy()}, []
    for _ in range(runs + 20):
        start = time.process_time()
        session.run(None, feed)
        taken.append(1000 * (time.process_time() - start))
    taken = taken[20:]  # the first ones also set memory up
    return Interval(float(np.median(taken)), *percentiles(taken))


def main() -> None:
    options, began = arguments(), time.process_time()
    network = Network.find(options.checkpoint)
    model = network.build(len(EMOTIONS_FERPLUS))
    valid = KeptFaces(script.some(FERPlus(options.data, "valid"), options.faces))
    plain, labels = predict(model, valid, **network.inputs())
    done = export_onnx(
        model,
        FOLDER / f"{NAME}.onnx",
        classes=EMOTIONS_FERPLUS,
        temperature=fit_temperature(plain, labels),
        facts={"network": type(model).__name__, "recipe": network.recipe.name, "data": "FER+ train"},
        **network.inputs(),
    )
    some = script.some(valid, SUITE)
    agree = parity(done.path, done.module, to_float(some.batch(torch.arange(32))["image"]))
    if max(agree.values()) > 1e-4:
        raise SystemExit(f"{done.path} differs from the network by {max(agree.values()):.1e}: not shipped")
    logits, labels = answers(done.path, valid)
    size, accuracy = done.path.stat().st_size, float((logits.argmax(1) == labels).float().mean())
    print("exported", size, "bytes; accuracy", accuracy)

    measured = {"predictions": (logits, labels), "split": "valid", "resamples": RESAMPLES}
    record = evaluate(done.module.network, valid, **measured)
    errors, calibrated = calibration(labels, logits * done.facts["temperature"])
    times = milliseconds(done.path, torch.rand(1, 1, 48, 48))
    for metric, number in errors.items():
        record.add(metric, number, over="faces")
    record.add("milliseconds a face, one core", times, over="runs")
    suite = robustness(
        done.module.network,
        some,
        severities=SEVERITIES,
        split="valid",
        resamples=RESAMPLES,
        progress=True,
        **network.inputs(),
    )
    record.numbers += suite.numbers
    moved = (logits.softmax(1) - (plain / done.facts["temperature"]).softmax(1)).abs().max()
    record.name = NAME
    record.what = "PocketNet as it is shipped, an ONNX file, on FER+ validation faces"
    record.settings |= {**done.facts, "robustness": {"faces": len(some), "severities": SEVERITIES}}
    record.settings["stored recipe"] = network.stored.get("recipe")
    record.extra |= {
        "bytes": size,
        "sha256": done.sha256,
        "parameters": done.facts["parameters"],
        "temperature": done.facts["temperature"],
        "calibration": calibrated,
        "parity": agree,
        "largest change by half precision": float(moved),
        "severities": suite.extra.get("severities"),
    }
    metrics = Path(options.checkpoint).with_name("metrics.jsonl")
    if metrics.is_file():
        record.curves = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    record.versions = {**versions(), "onnxruntime": load_runtime().__version__, "device": "cpu"}
    record.command = (
        "python -m book.experiments.pocket --checkpoint runs/pocket-ferplus/best.safetensors --data FERPlus"
        + (f" --faces {options.faces}" if options.faces else "")
    )
    record.seconds = round(time.process_time() - began, 1)
    print(record.save())
    ship(record, done.facts)


def ship(record: ResultRecord, facts: dict) -> None:
    """The facts beside the model file, and its card."""
    plain = [number for number in record.numbers if number.condition is None]
    validation = {n.metric: {"value": n.value, "low": n.low, "high": n.high} for n in plain}
    shipped = {
        **facts,
        "file": f"{NAME}.onnx",
        "bytes": record.extra["bytes"],
        "sha256": record.extra["sha256"],
        "record": f"book/results/{NAME}.json",
        "validation": validation,
        "wilson": record.extra["wilson"],
    }
    write_text(FOLDER / f"{NAME}.json", json.dumps(shipped, indent=1, ensure_ascii=False) + "\n")
    print(write_text(FOLDER / "MODEL_CARD.md", card(record)))


if __name__ == "__main__":
    main()
