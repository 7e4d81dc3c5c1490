"""Every recipe that is shipped can be read, and has the shape its comment promises."""

from pathlib import Path

import pytest

from caslon.model.size import parameter_counts
from caslon.recipe import load_recipe
from caslon.stages.pretrain import decoder_config

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_in_order_and_named_as_its_file(path):
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize(("name", "trained"), [("london", 108_433_152), ("london-regular", 333_931_520)])
def test_the_published_shapes_have_their_exact_counts(name, trained):
    recipe = load_recipe(next(path for path in RECIPES if path.stem == name))
    settings = recipe.stage("pretrain").settings
    config = decoder_config(settings, recipe.stage("tokenizer").settings.vocab_size, settings.context)
    assert parameter_counts(config).trained == trained
