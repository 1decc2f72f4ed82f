"""What a history says: which epoch was best, and the run as text. Chapter 6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ferlib.training.recipes import Recipe


def best_epoch(history: list[dict[str, Any]], recipe: Recipe) -> int:
    """The epoch chosen on validation; the earliest of equals.

    Shape: records in, the number of an epoch (from 1) out. Chapter 6.
    """
    if recipe.select == "loss":
        return min(history, key=lambda record: record["valid_loss"])["epoch"]
    return max(history, key=lambda record: record["valid_accuracy"])["epoch"]


def log_text(
    history: list[dict[str, Any]], recipe: Recipe, judged_by: str = "validation", faults: Sequence[str] = ()
) -> str:
    """A run as text, four lines an epoch, in the words of the Neural Resizer's log.

    ``faults``: lines about faces that were left out, which come first. The last line names the chosen epoch;
    in the released protocol, the highest accuracy of all epochs.

    Shape: E records in, a string out. Source: ``utils/train_model.py:99-110`` (which counts the epoch of its
    last line from 0; here from 1). Chapter 6.
    """
    word = judged_by.capitalize()
    text = "".join(f"{line}\n" for line in faults)
    for record in history:
        for title, key in (("Train", "train"), (word, "valid")):
            text += f"Epoch {record['epoch']}: Avg. {title} Loss: {record[f'{key}_loss']:.4f}\n"
            text += f"Epoch {record['epoch']}: Avg. {title} Acc.: {record[f'{key}_accuracy']:.4f}\n"
        text += "\n"
    if recipe.protocol == "released":
        epoch, title = max(history, key=lambda record: record["valid_accuracy"])["epoch"], "Best"
    else:
        epoch, title = best_epoch(history, recipe), "Chosen"
    reached = next(record for record in history if record["epoch"] == epoch)
    return text + f"{title} {word} Accuracy at Epoch {epoch}, {reached['valid_accuracy']:.4f}\n"
