"""Every recipe that is shipped can be read, and has the shape its comment promises."""

from pathlib import Path

import pytest

from caslon.model.size import parameter_counts
from caslon.recipe import load_recipe
from caslon.stages.pretrain import train_plan
from caslon.stages.shape import decoder_config

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_is_in_order_and_named_as_its_file(path):
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize(
    ("name", "trained"),
    [("slm", 108_433_152), ("london", 108_433_152), ("regular", 333_931_520), ("london-regular", 333_931_520)],
)
def test_the_published_shapes_have_their_exact_counts(name, trained):
    recipe = load_recipe(next(path for path in RECIPES if path.stem == name))
    settings = recipe.stage("pretrain").settings
    config = decoder_config(settings, recipe.stage("tokenizer").settings.vocab_size, settings.context)
    assert parameter_counts(config).trained == trained


@pytest.mark.promise("pretraining", "The published runs are shipped as recipes with their exact settings")
@pytest.mark.parametrize(
    ("name", "tokens_per_step", "steps", "peak", "warmup", "last"),
    [
        ("slm", 18_432, 60_000, 3e-4, 500, 3e-5),
        ("regular", 24_576, 60_000, 3e-5, 1_000, 3e-6),
        ("char-10m", 16_384, 5_000, 3e-4, 0, 3e-4),
        ("llama-188", 2_048, 1_000, 5e-4, 0, 1e-5),
    ],
)
def test_the_published_runs_have_their_settings(name, tokens_per_step, steps, peak, warmup, last):
    recipe = load_recipe(next(path for path in RECIPES if path.stem == name))
    chosen = recipe.stage("pretrain").settings
    assert chosen.output_settings()["packing"] == "windows"
    plan, _ = train_plan(chosen, 30_000, recipe.seed)
    assert (plan.tokens_per_step, plan.steps, plan.optimizer, plan.clip) == (tokens_per_step, steps, "adamw", 1.0)
    assert (plan.schedule.peak, plan.schedule.warmup_steps) == (peak, warmup)
    assert plan.schedule.rate(steps) == pytest.approx(last, rel=1e-6)
