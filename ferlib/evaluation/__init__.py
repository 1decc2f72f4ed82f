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
from ferlib.evaluation.records import Difference, Number, RecordError, ResultRecord, about
from ferlib.evaluation.scoring import confusion_shares, draw_scores, point_scores, scores
from ferlib.evaluation.suites import robustness

__all__ = [
    "ALTERATIONS",
    "Altered",
    "AnswerError",
    "Bin",
    "Comparison",
    "Difference",
    "Interval",
    "Number",
    "RecordError",
    "Resamples",
    "ResultRecord",
    "about",
    "accuracy",
    "accuracy_interval",
    "alter",
    "batch_dependence",
    "bootstrap_interval",
    "brier",
    "calibration_error",
    "class_recall",
    "compare",
    "compose",
    "confusion_matrix",
    "confusion_shares",
    "describe",
    "draw_scores",
    "encode",
    "evaluate",
    "fingerprint",
    "fit_temperature",
    "kinds_for",
    "listed_rows",
    "macro_f1",
    "mcnemar",
    "mean_class_accuracy",
    "measured",
    "nll",
    "point_scores",
    "predict",
    "reliability",
    "robustness",
    "scores",
    "split_faces",
    "summarise",
    "wilson_interval",
]
