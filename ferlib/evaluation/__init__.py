"""Evaluation: predictions, metrics with intervals, records of what was measured. Chapter 7."""

from ferlib.data.fingerprint import fingerprint
from ferlib.evaluation.alterations import ALTERATIONS, Altered, alter, describe, kinds_for
from ferlib.evaluation.batches import batch_dependence, compose
from ferlib.evaluation.calibration import (
    Bin,
    brier,
    calibration_error,
    fit_temperature,
    nll,
    reliability,
    split_faces,
)
from ferlib.evaluation.compare import Comparison, compare, mcnemar
from ferlib.evaluation.encoded import encode
from ferlib.evaluation.evaluate import AnswerError, evaluate, measured, predict
from ferlib.evaluation.intervals import (
    Interval,
    Resamples,
    accuracy_interval,
    bootstrap_interval,
    summarise,
    wilson_interval,
)
from ferlib.evaluation.lists import listed_rows
from ferlib.evaluation.metrics import (
    accuracy,
    class_recall,
    confusion_matrix,
    macro_f1,
    mean_class_accuracy,
)
from ferlib.evaluation.records import RecordError, ResultRecord, about
from ferlib.evaluation.scoring import confusion_shares, draw_scores, point_scores, scores
from ferlib.evaluation.suites import robustness
from ferlib.evaluation.verdicts import Claim, Difference, every_difference, highest, open_difference, points

__all__ = [
    "ALTERATIONS", "Altered", "AnswerError", "Bin", "Claim", "Comparison", "Difference", "Interval",
    "RecordError", "Resamples", "ResultRecord", "about", "accuracy", "accuracy_interval", "alter",
    "batch_dependence", "bootstrap_interval", "brier", "calibration_error", "class_recall", "compare",
    "compose", "confusion_matrix", "confusion_shares", "describe", "draw_scores", "encode", "evaluate",
    "every_difference", "fingerprint", "fit_temperature", "highest", "kinds_for", "listed_rows",
    "macro_f1", "mcnemar", "mean_class_accuracy", "measured", "nll", "open_difference", "point_scores",
    "points", "predict", "reliability", "robustness", "scores", "split_faces", "summarise",
    "wilson_interval",
]  # fmt: skip
