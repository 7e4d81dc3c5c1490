from pathlib import Path

import pytest
from fake_stages import fake_stages

from caslon.errors import UserError
from caslon.recipe import load_recipe

RECIPE = """
name = "small"
seed = 7

[corpus]
source = "a.txt"

[pretrain]
steps = 5

[finetune.style]
word = "hath"

[finetune.sft]
model = "pretrain"

[evaluate]
"""


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    with fake_stages(monkeypatch):
        yield


def written(tmp_path: Path, text: str, name: str = "recipe.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_stages_in_order_with_their_inputs(tmp_path):
    recipe = load_recipe(written(tmp_path, RECIPE))
    assert [table.name for table in recipe.stages] == [
        "corpus",
        "pretrain",
        "finetune.style",
        "finetune.sft",
        "evaluate",
    ]
    assert recipe.stage("finetune.style").inputs == {"model": "pretrain"}
    assert recipe.stage("finetune.sft").inputs == {"model": "pretrain"}
    assert recipe.stage("evaluate").inputs == {"model": "finetune.sft", "text": "corpus"}
    assert recipe.seed == 7
    assert recipe.stage("pretrain").settings.steps == 5


def test_kinds_work_in_fixed_order_whatever_the_order_of_the_file(tmp_path):
    recipe = load_recipe(written(tmp_path, 'name = "x"\n[pretrain]\n[corpus]\nsource = "a"\n'))
    assert [table.name for table in recipe.stages] == ["corpus", "pretrain"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('name = "x"\n[corpus]\nsource = "a"\n[pretrain]\nstep = 5\n', 5, "did you mean 'steps'"),
        ('name = "x"\n[corpus]\nsource = "a"\nword = "thou"\n', 4, "belongs under [finetune]"),
        ('name = "x"\nsteps = 4\n[corpus]\nsource = "a"\n', 2, "belongs under [pretrain]"),
        ('name = "x"\n[corpus]\nsource = "a"\n[pretain]\n', 4, "did you mean [pretrain]"),
        ('name = "x"\n[corpus]\nsource = "a"\nrepeat = 0\n', 4, "greater than or equal to 1"),
        ('name = "x"\n[corpus]\nrepeat = 2\n', 2, "'source' is needed"),
        ('name = "Big Name"\n[corpus]\nsource = "a"\n', 1, "'name' is needed"),
        ('name = "x"\n[pretrain]\n', 2, "needs text, and no earlier stage writes it"),
        ('name = "x"\n[corpus]\nsource="a"\n[pretrain]\n[finetune.a]\nmodel = "finetune.b"\n', 6, "not an earlier stage"),
        ('name = "x"\n[corpus\n', None, "not valid TOML"),
    ],
)  # fmt: skip
def test_mistakes_name_file_line_and_cure(tmp_path, text, line, message):
    with pytest.raises(UserError) as caught:
        load_recipe(written(tmp_path, text))
    assert message in str(caught.value)
    if line:
        assert f"recipe.toml:{line}" in str(caught.value)


def test_all_mistakes_at_once(tmp_path):
    with pytest.raises(UserError) as caught:
        load_recipe(written(tmp_path, 'name = "x"\n[corpus]\nsorce = "a"\n[pretrain]\nsteps = "many"\nlr = 1\n'))
    assert "4 things are wrong" in str(caught.value)


def test_override_is_typed_and_named_in_errors(tmp_path):
    path = written(tmp_path, RECIPE)
    recipe = load_recipe(path, ["pretrain.steps=9", "corpus.source=b.txt", "finetune.style.word=ye"])
    assert recipe.stage("pretrain").settings.steps == 9
    assert recipe.stage("corpus").settings.source == "b.txt"
    assert recipe.stage("finetune.style").settings.word == "ye"
    with pytest.raises(UserError, match=r"--set pretrain\.steps=0"):
        load_recipe(path, ["pretrain.steps=0"])
    with pytest.raises(UserError, match="cannot read --set"):
        load_recipe(path, ["pretrain"])


def test_extends_works_one_level_deep(tmp_path):
    written(tmp_path, RECIPE, "parent.toml")
    child = written(tmp_path, 'extends = "parent.toml"\nname = "child"\n[pretrain]\nsteps = 8\n', "child.toml")
    recipe = load_recipe(child)
    assert recipe.name == "child"
    assert recipe.stage("pretrain").settings.steps == 8
    assert recipe.stage("corpus").settings.source == "a.txt"
    grandchild = written(tmp_path, 'extends = "child.toml"\nname = "g"\n', "grandchild.toml")
    with pytest.raises(UserError, match="one level deep"):
        load_recipe(grandchild)


def test_error_in_the_parent_names_the_parent(tmp_path):
    written(tmp_path, 'name = "p"\n[corpus]\nsource = "a"\nbad = 1\n', "parent.toml")
    child = written(tmp_path, 'extends = "parent.toml"\nname = "child"\n', "child.toml")
    with pytest.raises(UserError, match=r"parent\.toml:4"):
        load_recipe(child)
