"""Evaluation: predictions, metrics with intervals, records of what was measured. Chapter 7."""

from ferlib.evaluation.evaluate import evaluate, predict
from ferlib.evaluation.metrics import (
    Interval,
    accuracy,
    accuracy_interval,
    bootstrap_interval,
    class_recall,
    confusion_matrix,
    macro_f1,
    mean_class_accuracy,
    wilson_interval,
)
from ferlib.evaluation.records import RecordError, ResultRecord, fingerprint

__all__ = [
    "Interval", "RecordError", "ResultRecord", "accuracy", "accuracy_interval", "bootstrap_interval",
    "class_recall", "confusion_matrix", "evaluate", "fingerprint", "macro_f1", "mean_class_accuracy",
    "predict", "wilson_interval",
]  # fmt: skip
