"""The card of the shipped model: words that hold for any run of its recipe, numbers from its record.

python -m book.experiments.model_card        writes the card anew from the record
"""

from __future__ import annotations

import re
from pathlib import Path

import ferlib
from ferlib.evaluation import Interval, ResultRecord
from ferlib.files import write_text

NAME, DETECTOR = "pocket_ferplus", "face_detector"

TEXT = """\
# Model card: pocket_ferplus

A small network that reads one of eight expressions in a frontal face, made for a web page and a terminal:
`ferlib predict`, and the page "Try it" of the book. All numbers below come from the record
`book/results/pocket_ferplus.json`, which `book/experiments/pocket.py` makes together with this file.

| part | what it is |
| --- | --- |
| network | {network}: learned resizer, residual stages, evidence maps; {parameters:,} parameters |
| file | `pocket_ferplus.onnx`, {bytes:,} bytes, weights in half precision, computes in single precision |
| SHA-256 | `{sha256}` |
| input | `face`: grey faces (N, 1, 48, 48) with values 0 to 1 |
| output | `probabilities` and `logits` (N, 8), `evidence` (N, 8, 6, 6): its means are the logits |
| classes | {classes} |
| temperature | {temperature:.3f}, fitted on the validation faces and applied inside the file |
| time | {ms:.1f} ms of one processor core a face (onnxruntime, {device}) |

## Data

Trained on nothing but the training split of FER+ (Barsoum et al. 2016): grey faces of 48 pixels that
were collected with web searches for emotion words (FER2013), each labelled by ten crowd workers. The network
learned from the votes. Validation, {faces:,} faces, chose the epoch and the temperature and is what the
numbers below are measured on, so they are slightly kind; the test split was not used. Age, origin and gender
of the people are not recorded, so fairness across groups could not be measured and must not be assumed.

## How good it is

FER+ validation, {faces:,} faces, 95 % intervals (bootstrap over faces):

| measure | value |
| --- | --- |
| accuracy | {accuracy} |
| mean class accuracy | {mean} |
| calibration error before the temperature | {before} |
| calibration error after it | {after} |

The two calibration errors are measured on one half of the faces, with a temperature fitted on the other.

Of the faces that annotators called ..., it finds (Wilson intervals, for some classes are few):

| expression | faces | recall |
| --- | ---: | --- |
{recalls}

On changed faces, accuracy on {suite:,} of them ({clean} untouched):

| change | severity 1 | severity 3 | severity 5 |
| --- | --- | --- | --- |
{changes}

Keeping the weights in half precision changed no probability by more than {moved:.4f}. The file's answers
differ from those of the PyTorch network by at most {parity:.6f}.

### How well faces are found

Faces of 24 to 200 pixels in photographs of 640 x 480 pixels, 95 % intervals (Wilson), from the record
`book/results/face_detector.json`. The detector is BlazeFace. A picture of that size takes it {seconds:.2f} s
of one processor core; one that a face fills is searched less.

| faces | found |
| --- | --- |
{detected}

In pictures without a face ({megapixels:.1f} megapixels) the detector finds {false:.1f} faces per megapixel
({false_low:.1f}-{false_high:.1f}).
Brows and the whole mouth lie inside {framed} of the detector's frames around synthetic faces.

<!-- use -->
## What it is for

To see a small network work on a picture of one's own, to learn where it looks and where it fails; to teach.

## What it must not be used for

- Deciding anything about a person: hiring, schooling, credit, policing, borders, insurance, health, lies.
- Watching people who have not agreed to it, or keeping its answers about them.
- Claims about what somebody feels. It guesses which word crowd workers would choose for a picture.
  A face shows a movement; what moves it, the picture does not say.
- Children, patients, or faces unlike those of its data, where nothing about it is known.

In the European Union, reading emotions at work and in schools is prohibited outside medical and safety
purposes (Regulation (EU) 2024/1689, Article 5).

## Known limits

- Rare expressions are found rarely: see the recalls, and mind that their intervals are wide.
- It always answers one of eight words, also for a face between them, a drawing, or no face at all.
- It saw grey, frontal faces of 48 pixels. Profiles, hands over the face, small and dark faces are read worse.
- The detector beside it misses faces, and takes some animals and textures for faces: see the table.

<!-- end of use -->
The code is under ferlib's MIT licence. FER+'s labels are Microsoft's (MIT); the pictures are FER2013's,
shared for research, and none of them is in the file or in this package.
"""


def percent(found: Interval) -> str:
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f}–{100 * found.high:.1f})"


def in_order(text: str) -> list[int | str]:
    """A key that sorts "24 pixels" before "110 pixels"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def detection(record: ResultRecord) -> dict[str, object]:
    """What the card says of the detector."""
    rows = []
    recalls = [number for number in record.numbers if number.metric == "recall"]
    for number in sorted(recalls, key=lambda number: in_order(number.condition)):
        rows.append(f"| {number.condition} | {percent(number)} |")
    false = record.get("false finds per megapixel")
    return {
        "detected": "\n".join(rows),
        "megapixels": record.extra["megapixels"],
        "false": false.value,
        "false_low": false.low,
        "false_high": false.high,
        "seconds": record.get("seconds per picture").value,
        "framed": percent(record.get("frames that hold brows and mouth")),
    }


def card(record: ResultRecord) -> str:
    """The card as Markdown, every number from the record. Shape: a record in, a text out."""
    extra, settings = record.extra, record.settings
    recalls = []
    for name, faces in zip(record.classes, record.data["per class"], strict=True):
        low, high = extra["wilson"][f"recall {name}"]
        found = Interval(record.get(f"recall {name}").value, low, high)
        recalls.append(f"| {name} | {faces:,} | {percent(found)} |")
    changes = []
    for kind in sorted(extra["severities"]):
        cells = (percent(record.get("accuracy", condition=f"{kind} {s}")) for s in (1, 3, 5))
        changes.append(f"| {kind} | {' | '.join(cells)} |")
    return TEXT.format(
        network=settings["network"],
        parameters=extra["parameters"],
        bytes=extra["bytes"],
        sha256=extra["sha256"],
        classes=", ".join(record.classes),
        temperature=extra["temperature"],
        ms=record.get("milliseconds a face, one core").value,
        device=record.versions["device"],
        faces=record.data["faces"],
        accuracy=percent(record.get("accuracy")),
        mean=percent(record.get("mean class accuracy")),
        before=percent(record.get("calibration error before temperature")),
        after=percent(record.get("calibration error after temperature")),
        recalls="\n".join(recalls),
        suite=settings["robustness"]["faces"],
        clean=percent(record.get("accuracy", condition="clean")),
        changes="\n".join(changes),
        moved=extra["largest change by half precision"],
        parity=max(extra["parity"].values()),
        **detection(ResultRecord.load(DETECTOR)),
    )


if __name__ == "__main__":
    place = Path(ferlib.__file__).parent / "pretrained" / "MODEL_CARD.md"
    print(write_text(place, card(ResultRecord.load(NAME))))
