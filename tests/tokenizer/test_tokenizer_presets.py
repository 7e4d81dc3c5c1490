import pytest

from caslon.errors import UserError
from caslon.tokenizer.presets import PRESETS, train_preset


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_what_it_loses(training_texts: list[str], preset: str) -> None:
    warnings: list[str] = []
    tokenizer = train_preset(preset, training_texts, vocab_size=900, warn=warnings.append)
    loss = tokenizer.record["loss"]
    assert tokenizer.record["lossy"] is True
    assert 0 < loss["lost"] <= loss["texts"]
    assert loss["lost"] == loss["lost_segments"] + loss["lost_hard"] + loss["lost_random"]
    assert f"{loss['lost']:,} of {loss['texts']:,}" in warnings[0]
    assert tokenizer.vocab_size == tokenizer.record["vocab_size"] <= 900
    assert tokenizer.id_of("<|endoftext|>") == 1


def test_bert_loses_capitals_and_sentencepiece_loses_spaces(training_texts: list[str]) -> None:
    bert = train_preset("bert", training_texts, vocab_size=600)
    assert bert.decode(bert.encode("Lazy")) == "lazy"
    sentencepiece = train_preset("sentencepiece", training_texts, vocab_size=900)
    assert sentencepiece.decode(sentencepiece.encode("the  quick 漢")) == "the quick 漢"


def test_presets_that_cannot_be_had(training_texts: list[str]) -> None:
    with pytest.raises(UserError, match="no preset 'gpt5'"):
        train_preset("gpt5", training_texts, vocab_size=900)
    with pytest.raises(UserError, match="too small"):
        train_preset("bert", training_texts, vocab_size=100)
    with pytest.raises(UserError, match="no text"):
        train_preset("bert", [""], vocab_size=900)
