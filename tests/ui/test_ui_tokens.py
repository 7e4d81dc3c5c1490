import math

from caslon.engine.request import Piece, TokenLogprob
from caslon.ui.tokens import TokenView, conversation, visible


def piece(tokenizer, text: str, logprob: float = -0.1, **fields) -> Piece:
    ids = tuple(tokenizer.encode(text))
    return Piece(text, ids, tuple(TokenLogprob(id, logprob, ((id, logprob), (65, -3.0))) for id in ids), **fields)


def test_doubt_is_one_minus_the_probability(tokenizer) -> None:
    view = TokenView(tokenizer)
    view.add(piece(tokenizer, "the", math.log(0.25)))
    assert '--doubt:0.75">the<' in view.html()
    assert "25.0 %" in view.html()
    assert "5.0 %" in view.html()  # the rival


def test_parts_of_a_character_are_one_span_with_their_common_probability(tokenizer) -> None:
    view = TokenView(tokenizer)
    view.add(piece(tokenizer, "ü", math.log(0.5)))
    assert view.html().count('class="tok"') == 1
    assert "--doubt:0.75" in view.html()
    assert view.tokens == 2


def test_what_a_model_or_user_writes_is_shown_not_run(tokenizer) -> None:
    attack = "<script>alert(1)</script><img src=http://evil/x>"
    view = TokenView(tokenizer, prompt=attack)
    view.add(Piece(attack, (1,), ()))
    assert "<script" not in view.html()
    assert "<img" not in view.html()
    shown = conversation([{"role": "user", "content": attack}, {"role": "assistant", "content": attack}])
    assert "<script" not in shown
    assert "<img" not in shown


def test_blanks_are_visible_in_the_table() -> None:
    assert visible(" a\n\tb") == "␣a↵⇥b"
