"""Thinking, answers and tool calls told apart by their markers; a limit on thinking."""

import json

import pytest
import torch

from caslon.engine import form as forms
from caslon.engine.answer import Answer
from caslon.engine.engine import Engine
from caslon.engine.request import Completion, Piece, SamplingParams, Sequence
from caslon.engine.sampler import Choice
from caslon.engine.sections import Markers, Sections, thinking_markers
from caslon.engine.thinking import ThinkingLimit
from caslon.tokenizer.tokenizer import Tokenizer


def sections_of(tokenizer: Tokenizer, **more: bool) -> Sections:
    calls = Markers(tokenizer.id_of("<|tool_call|>"), tokenizer.id_of("<|/tool_call|>"))
    return Sections(thinking_markers(tokenizer), calls, **more)


def told(
    tokenizer: Tokenizer, text: str, params: SamplingParams | None = None, **more: bool
) -> tuple[Completion, list]:
    """Return what becomes of a text whose special spellings are tokens, and its pieces."""
    pieces: list[Piece] = []
    sequence = Sequence((0,), params or SamplingParams(max_tokens=500), frozenset({tokenizer.end_of_turn_id}), 0)
    answer = Answer(sequence, tokenizer, pieces.append, sections_of(tokenizer, **more))
    for token in tokenizer.encode(text, allow_special=True):
        if answer.completion is None:
            answer.accept(Choice(token))
    answer.end("length")
    answer.publish()
    return answer.completion, pieces


@pytest.mark.promise("engine", "Thinking, answer and tool calls are told apart while they stream, by markers only")
def test_sections_in_pieces_and_whole(tokenizer: Tokenizer) -> None:
    text = "<|think|>Zwölf 漢<|/think|>Hi.<|tool_call|>{1}<|/tool_call|><|tool_call|>{2}<|/tool_call|> Done<|end|>"
    whole, pieces = told(tokenizer, text)
    assert (whole.thinking, whole.text, whole.tool_calls) == ("Zwölf 漢", "Hi. Done", ("{1}", "{2}"))
    assert (whole.finish_reason, whole.thinking_unclosed) == ("stop", False)
    assert whole.thinking_tokens == len(tokenizer.encode("Zwölf 漢")) + 2
    seen = {}
    for piece in pieces:
        seen[piece.section] = seen.get(piece.section, "") + piece.text
    assert seen == {
        ("thinking", 0): "Zwölf 漢",
        ("answer", 0): "Hi. Done",
        ("tool_call", 0): "{1}",
        ("tool_call", 1): "{2}",
    }
    assert sum((piece.ids for piece in pieces), ()) == whole.ids


def test_unclosed_thinking_is_all_thinking(tokenizer: Tokenizer) -> None:
    whole, _ = told(tokenizer, "<|think|>never ends")
    assert (whole.thinking, whole.text, whole.thinking_unclosed) == ("never ends", "", True)
    whole, _ = told(tokenizer, "opened by the template<|/think|>yes", begins_thinking=True)
    assert (whole.thinking, whole.text) == ("opened by the template", "yes")


def test_a_marker_spelled_out_stays_text(tokenizer: Tokenizer) -> None:
    spelled = tokenizer.encode("<|think|>x<|/think|>")
    sequence = Sequence((0,), SamplingParams(max_tokens=500), frozenset(), 0)
    answer = Answer(sequence, tokenizer, None, sections_of(tokenizer))
    for token in spelled:
        answer.accept(Choice(token))
    answer.end("stop")
    assert answer.completion.text == "<|think|>x<|/think|>"


def test_a_stop_string_stops_the_answer_only(tokenizer: Tokenizer) -> None:
    params = SamplingParams(max_tokens=500, stop=("fox",))
    whole, _ = told(tokenizer, "<|think|>a fox<|/think|>The fox", params)
    assert (whole.thinking, whole.text, whole.stop_reason) == ("a fox", "The ", "fox")


def test_half_a_character_before_a_marker_is_thinking(tokenizer: Tokenizer) -> None:
    sequence = Sequence((0,), SamplingParams(max_tokens=500), frozenset(), 0)
    pieces: list[Piece] = []
    answer = Answer(sequence, tokenizer, pieces.append, sections_of(tokenizer, begins_thinking=True))
    half = next(id for id in range(tokenizer.vocab_size) if tokenizer.token_bytes(id) == "漢".encode()[:1])
    for token in (half, tokenizer.id_of("<|/think|>"), *tokenizer.encode("ok")):
        answer.accept(Choice(token))
    answer.end("stop")
    answer.publish()
    assert (answer.completion.thinking, answer.completion.text) == ("\ufffd", "ok")
    assert next((piece.section.kind, piece.text) for piece in pieces if piece.text) == ("thinking", "\ufffd")


@pytest.mark.promise("engine", "Thinking never takes more tokens than its budget and its markers")
@pytest.mark.parametrize("budget", [0, 1, 7])
@pytest.mark.parametrize("begins", [False, True])
def test_thinking_keeps_to_its_budget(engine: Engine, budget: int, begins: bool) -> None:
    tokenizer = engine.tokenizer
    markers = thinking_markers(tokenizer)
    for seed in range(6):
        fields = {"max_tokens": 9, "seed": seed, "thinking_budget": budget, "temperature": 2.0}
        params = SamplingParams(**fields, logit_bias={markers.opening: 30.0})
        limit = ThinkingLimit(markers, budget, end_ids=engine.end_ids, begins_thinking=begins)
        handle = engine.submit([5, 6], params, constraint=limit, sections=Sections(markers, begins_thinking=begins))
        whole = handle.result(60)
        if begins or budget:
            assert 1 <= whole.thinking_tokens <= budget + 2
            assert not whole.thinking_unclosed
        else:
            assert whole.thinking_tokens == 0
        assert len(whole.ids) - whole.thinking_tokens <= 9
        assert whole.finish_reason in ("stop", "length")
        if whole.finish_reason == "length":
            assert len(whole.ids) - whole.thinking_tokens == 9


def test_a_form_after_thinking(engine: Engine) -> None:
    markers = thinking_markers(engine.tokenizer)
    form = forms.json_schema(
        {"type": "array", "items": {"type": "integer", "maximum": 99, "minimum": 0}, "maxItems": 2}
    )
    for seed in range(5):
        limit = ThinkingLimit(markers, 6, end_ids=engine.end_ids, answer=engine.constraint(form))
        params = SamplingParams(max_tokens=60, seed=seed, thinking_budget=6, logit_bias={markers.opening: 30.0})
        whole = engine.submit([5], params, constraint=limit, sections=Sections(markers)).result(60)
        assert whole.thinking_tokens > 1
        assert whole.finish_reason == "stop"
        assert isinstance(json.loads(whole.text), list)


def test_rollback_over_the_end_of_thinking(engine: Engine) -> None:
    tokenizer = engine.tokenizer
    markers = thinking_markers(tokenizer)

    def limit() -> ThinkingLimit:
        return ThinkingLimit(
            markers, 5, end_ids=engine.end_ids, answer=engine.constraint(forms.regex("the fox|the dog"))
        )

    tokens = [markers.opening, *tokenizer.encode("a b")[:2], markers.closing, *tokenizer.encode("the fox")]
    for kept in range(len(tokens)):
        walked, straight = limit(), limit()
        for token in tokens:
            walked.advance(token)
        assert walked.may_end
        walked.rollback(len(tokens) - kept)
        for token in tokens[:kept]:
            straight.advance(token)
        masked = [torch.zeros(tokenizer.vocab_size) for _ in range(2)]
        walked.mask(masked[0])
        straight.mask(masked[1])
        assert torch.equal(*masked)
        assert walked.may_end == straight.may_end
