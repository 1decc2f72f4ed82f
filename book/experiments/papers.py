"""What the papers' gains amount to in faces, and published accuracies on FER+ beside what labels allow.

    python -m book.experiments.papers

Nothing is trained or measured here: the figures are the papers', the rest is arithmetic. A gain of d on n
faces is d n faces. Two networks that disagree on a share q of the faces (one right, the other wrong) differ
by chance with a standard error of sqrt((q - d^2) / n), so that one run of each gives z = d / that. The papers
do not say q; 5 % is two seeds of one good network, 12 % two rather different ones. Writes
``book/results/papers_in_faces.json``.
"""

from __future__ import annotations

import math

from ferlib.evaluation import ResultRecord
from ferlib.evaluation.records import Number

#: Test set, its number of faces, and the paper's accuracy with and without the proposal, or the gain alone.
BTN_GAINS = {
    "RAF-DB": (3068, 0.9254, 0.9221),
    "AffectNet, 7 classes": (3500, 0.6760, 0.6749),
    "AffectNet, 8 classes": (4000, 0.6429, 0.6377),
    "FER2013": (3589, 0.0137, 0.0),
}
DISCORDANCE = (0.05, 0.12)
#: Published accuracy on FER+'s test split, the source, and what is known of the protocol.
FERPLUS = {
    "VGG13": (0.8499, "Barsoum et al. 2016, arXiv 1608.01041", "majority of votes, eight classes"),
    "SENet50, VGGFace2": (
        0.888,
        "Albanie et al. 2018, arXiv 1808.05561",
        "trained on 3.3 million faces before",
    ),
    "Neural Resizer": (
        0.8950,
        "arXiv 2204.02181",
        "3,137 faces; augmented at test time by the released code",
    ),
    "POSTER": (0.9162, "arXiv 2204.04083", "face and landmark networks trained before"),
    "PAtt-Lite": (0.9555, "arXiv 2306.09626", "not at hand"),
}
#: Accuracy of one network of this book (``best_alone_ferplus``) on FER+ test images by the rule that makes a
#: label of the votes, measured by a holder of those images.
RULES = {
    "outliers dropped, then more than half": 0.8872,
    "the same on the votes of fer2013new.csv": 0.8886,
    "at least half of all votes": 0.8895,
    "most votes of eight, 3,572 faces": 0.846,
    "seven classes": 0.8905,
}


def z_of(gain: float, faces: int, discordance: float) -> float:
    """The gain over its standard error, for one run of each network on the same faces."""
    return gain / math.sqrt((discordance - gain**2) / faces)


def record() -> ResultRecord:
    """Both tables as one record."""
    found = ResultRecord(
        name="papers_in_faces",
        what="Gains that the Batch Transformer Network claims, in faces; published accuracies on FER+",
        settings={"discordance": DISCORDANCE},
        command="python -m book.experiments.papers",
    )
    for name, (faces, proposed, baseline) in BTN_GAINS.items():
        gain = proposed - baseline
        values = {"gain": round(gain, 4), "faces": faces, "faces gained": round(gain * faces)}
        for metric, value in values.items():
            found.numbers.append(Number(value, metric=metric, arm=name))
        for share in DISCORDANCE:
            value = round(z_of(gain, faces, share), 3)
            found.numbers.append(Number(value, metric="z of one run", arm=name, condition=f"{share:.0%}"))
    for name, (accuracy, source, protocol) in FERPLUS.items():
        found.numbers.append(Number(accuracy, metric="accuracy", arm=name, condition="FER+ test"))
        found.extra[name] = {"source": source, "protocol": protocol}
    for rule, accuracy in RULES.items():
        found.numbers.append(Number(accuracy, metric="accuracy", arm="best_alone_ferplus", condition=rule))
    return found


if __name__ == "__main__":
    print(record().save())
