"""Training: one loop for every network of the book, recipes it follows, checkpoints it leaves. Chapter 6."""

from ferlib.training.build import build_augment, build_average, build_criterion, build_model, build_optimizer
from ferlib.training.environment import versions
from ferlib.training.loop import TrainingError, fit, train_epoch, train_step
from ferlib.training.progress import Progress, make_progress
from ferlib.training.recipes import Recipe, RecipeError, bundled, load_recipe, recipe_from
from ferlib.training.runs import best_epoch, runs_folder
from ferlib.training.sam import SAM
from ferlib.weights import checkpoints

__all__ = [
    "SAM",
    "Progress",
    "Recipe",
    "RecipeError",
    "TrainingError",
    "best_epoch",
    "build_augment",
    "build_average",
    "build_criterion",
    "build_model",
    "build_optimizer",
    "bundled",
    "checkpoints",
    "fit",
    "load_recipe",
    "make_progress",
    "recipe_from",
    "runs_folder",
    "train_epoch",
    "train_step",
    "versions",
]
