"""The Neural Resizer's config.json is read as it is, and says clearly what it does not understand."""

import json
import sys

import pytest

from ferlib.training import RecipeError, load_recipe
from ferlib.training.original_config import read_original_config

# The file of the released program, word for word.
RELEASED = """{
  "_comment": "configurations for dataLoaders, aligned is only for raf-db.",
  "batch_size": 64,
  "resize": "True",
  "data_dir": "./data",
  "dataset": "ferplus",
  "_comment2": "configurations for training",
  "model": "models.SwinT.VanillaSwinT",
  "exp_name": "SwinT_Base_Ferplus_DIC_LTR_FPDLS_0.8_Hard_DA",
  "criterion": "utils.losses.FocalLabelSmoothingLossDis",
  "optimizer": "torch.optim.Adam",
  "lr": 1e-4,
  "scheduler": "torch.optim.lr_scheduler.StepLR",
  "num_epochs": 100,
  "n_classes": 8
}
"""


def _read(tmp_path, protocol="paper", **changes):
    values = json.loads(RELEASED) | changes
    path = tmp_path / "config.json"
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))
    return read_original_config(path, protocol)


def test_the_released_file_is_the_bundled_recipe(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(RELEASED)
    config = read_original_config(path)
    name = "SwinT_Base_Ferplus_DIC_LTR_FPDLS_0.8_Hard_DA"
    assert (config.recipe.data, str(config.data), config.text) == ("ferplus", "data", RELEASED)
    assert config.recipe == load_recipe("vt-nr-ferplus").replace(name=name)
    recipe = config.recipe
    assert (recipe.lr, recipe.batch_size, recipe.epochs, recipe.seed) == (1e-4, 64, 100, 1111)
    assert (recipe.schedule, recipe.step_size, recipe.decay, recipe.warmup) == ("step", 15, 0.25, 0)
    assert (recipe.loss, recipe.loss_options) == ("f-pdls", {"alpha": 0.8, "gamma": 2.0})
    assert (recipe.optimizer, recipe.weight_decay, recipe.sam_rho) == ("adam", 0, None)
    assert (recipe.protocol, recipe.select, recipe.augment) == ("paper", "accuracy", "neural-resizer")
    released = read_original_config(path, "released").recipe
    assert released == recipe.replace(protocol="released", select="loss")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"criterion": "utils.losses.LabelSmoothingLossDis"}, {"loss": "pdls"}),
        ({"criterion": "torch.nn.CrossEntropyLoss"}, {"loss": "cross-entropy", "loss_options": {}}),
        ({"optimizer": "torch.optim.AdamW"}, {"optimizer": "adamw", "weight_decay": 0.01}),
        ({"dataset": "rafdb", "n_classes": 7, "aligned": "aligned"}, {"data": "rafdb"}),
        ({"dataset": "affectnet", "n_classes": 7}, {"data": "affectnet7"}),
        ({"model": "ferlib.models.btn_small"}, {"model": "btn_small", "weights": {}, "image_size": None}),
        ({"resize": ...}, {}),
        ({"_why": ["any", {"thing": 1}]}, {}),
    ],
    ids=str,
)
def test_every_key_does_something(tmp_path, changes, expected):
    recipe = _read(tmp_path, **changes).recipe
    assert {key: getattr(recipe, key) for key in expected} == expected


WRONG = [
    ({"learning_rate": 1}, "learning_rate"),
    ({"lr": ...}, "lr"),
    ({"lr": "1e-4"}, "1e-4"),
    ({"batch_size": 6.5}, "6.5"),
    ({"dataset": "imagenet"}, "imagenet"),
    ({"dataset": "rafdb"}, "8"),  # classes
    ({"scheduler": "torch.optim.lr_scheduler.ExponentialLR"}, "ExponentialLR"),
    ({"model": "os.system"}, "os.system"),
    ({"criterion": "antigravity.fly"}, "antigravity.fly"),
    ({"optimizer": {"a": "b" * 500}}, "bbb"),
    ({"exp_name": "../../outside"}, "../../outside"),
    ({"exp_name": "x" * 500}, "xxx"),
    ({"data_dir": ""}, "''"),
    ({"resize": "perhaps"}, "perhaps"),
    ({"aligned": "sideways"}, "sideways"),
]


@pytest.mark.parametrize(("changes", "found"), WRONG, ids=str)
def test_what_is_wrong_names_file_key_and_value(tmp_path, changes, found):
    with pytest.raises(RecipeError) as error:
        _read(tmp_path, **changes)
    message = str(error.value)
    key = "n_classes" if changes == {"dataset": "rafdb"} else next(iter(changes))
    assert message.startswith("config.json: ") and key in message and found in message
    assert "\n" not in message and len(message) < 400
    assert "antigravity" not in sys.modules  # names are looked up, never imported


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"lr": NaN}', "[" * 100_000])
def test_what_is_no_config_is_told(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"config\.json"):
        read_original_config(path)
    with pytest.raises(RecipeError, match="no such file"):
        read_original_config(tmp_path / "none.json")


def test_data_lies_where_the_program_or_the_file_is(tmp_path, monkeypatch):
    (tmp_path / "there" / "data").mkdir(parents=True)
    folder = tmp_path / "there"
    assert _read(folder).data == folder / "data"  # nothing of that name in the working folder
    monkeypatch.chdir(folder)
    assert str(_read(folder).data) == "data"
    assert _read(folder, data_dir=str(tmp_path)).data == tmp_path
