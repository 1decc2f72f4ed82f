"""Train the small network on real FER+ as if no batch could be asked: the twin of ``small_model_ferplus``.

    python -m book.experiments.small_model_alone --data /path/to/FERPlus

Same recipe, seed and first weights as ``small_model_ferplus.py``, but only the loss of the image's own
answer, lambda L_VIT, is learned from, and only that answer is given. What differs between the two networks
is therefore what the batch's two losses did. Writes no record; ``--runs`` holds the weights that
``evaluation.py`` compares. A stopped run goes on with ``--resume``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor, nn

from ferlib.data import FERPlus
from ferlib.losses import BatchTransformerLoss
from ferlib.training import build_criterion, build_model, fit, load_recipe
from ferlib.training.recipes import Recipe


class OwnAnswerLoss(nn.Module):
    """lambda L_VIT of a network with three answers: what is left of its loss without the batch."""

    def __init__(self, whole: BatchTransformerLoss) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, output: Tensor | tuple, target: Tensor) -> Tensor:
        if isinstance(output, Tensor):
            return self.whole(output, target)
        return self.whole.vit_weight * self.whole.criterion(output.vit, target)


def alone(recipe: Recipe) -> tuple[Recipe, nn.Module]:
    """The recipe of the twin and its criterion."""
    recipe = recipe.replace(
        name=f"{recipe.name}-alone", model_options={**recipe.model_options, "inference": "vit"}
    )
    return recipe, OwnAnswerLoss(build_criterion(recipe))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="FER+ in any layout that ferlib reads")
    parser.add_argument("--recipe", default="btn-small-ferplus")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "small_model_alone")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()

    recipe, criterion = alone(load_recipe(options.recipe))
    train, valid = FERPlus(options.data, "train"), FERPlus(options.data, "valid")
    model = build_model(recipe, num_classes=len(train.classes))
    fit(model, criterion, train, valid, recipe, run_dir=options.runs, resume=options.resume)


if __name__ == "__main__":
    main()
