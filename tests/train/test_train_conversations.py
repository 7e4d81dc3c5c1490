import json
from pathlib import Path
from typing import Any

import pytest
import torch

from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.batches import ConversationBatches
from caslon.train.conversations import (
    Conversation,
    Row,
    encode_rows,
    encoded,
    read_rows,
    row_problem,
    split_rows,
)
from caslon.train.objectives import NextToken


def chat(question: str, answer: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **fields}]}


def test_the_answer_and_its_end_are_scored_and_nothing_else(tokenizer: Tokenizer) -> None:
    conversation = encoded(Row("here", chat("what comes next", "every token")), tokenizer)
    scored = [id for id, counts in zip(conversation.ids, conversation.scored, strict=True) if counts]
    assert scored[-1] == tokenizer.end_of_turn_id
    assert tokenizer.decode(scored[:-1]) == "every token"
    assert conversation.ids.count(tokenizer.end_of_turn_id) > scored.count(tokenizer.end_of_turn_id)


def test_every_answer_of_a_long_talk_is_scored_unless_it_is_muted(tokenizer: Tokenizer) -> None:
    messages = [
        {"role": "system", "content": "the model"},
        *chat("a", "tokens")["messages"],
        *chat("in", "every row", weight=0)["messages"],
    ]
    conversation = encoded(Row("here", {"messages": messages}), tokenizer)
    scored = [id for id, counts in zip(conversation.ids, conversation.scored, strict=True) if counts]
    assert tokenizer.decode(scored[:-1]) == "tokens"
    assert scored[-1] == tokenizer.end_of_turn_id


def gradients(decoder: Decoder, batches: ConversationBatches, rows: int) -> list[torch.Tensor]:
    decoder.zero_grad()
    total = 0
    for step in range(batches.rows_per_epoch // rows):
        part = NextToken(name="sft").loss(decoder, batches.batch(step, rows))
        part.sum.backward()  # type: ignore[no-untyped-call]
        total += part.count
    return [parameter.grad / total for parameter in decoder.parameters() if parameter.grad is not None]


def tiny(tokenizer: Tokenizer) -> Decoder:
    decoder = Decoder(
        DecoderConfig.from_depth(2, family="qwen3", vocab_size=tokenizer.vocab_size, context=64, hidden_size=32)
    )
    decoder.initialise(0)
    return decoder


def test_packed_and_padded_conversations_give_the_same_gradient(tokenizer: Tokenizer) -> None:
    rows = [
        Row("", chat(question, answer))
        for question, answer in (("a row", "of tokens"), ("the", "model"), ("in", "every a"))
    ]
    conversations = encode_rows(rows, tokenizer, 64).conversations
    decoder = tiny(tokenizer)
    packed = ConversationBatches(conversations, 64, tokenizer.pad_id, 0)
    assert packed.rows_per_epoch < len(conversations)
    apart = [ConversationBatches((item,), 64, tokenizer.pad_id, 0) for item in conversations]
    together = gradients(decoder, packed, packed.rows_per_epoch)
    decoder.zero_grad()
    count = 0
    for single in apart:
        part = NextToken(name="sft").loss(decoder, single.batch(0, 1))
        part.sum.backward()  # type: ignore[no-untyped-call]
        count += part.count
    for parameter, found in zip(decoder.parameters(), together, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad / count - found).norm() <= 1e-6 + 1e-5 * found.norm()


def test_a_users_words_are_read_but_never_learnt(tokenizer: Tokenizer) -> None:
    """Another target in the user's part changes no gradient; the end of the answer does."""
    decoder = tiny(tokenizer)
    conversation = encoded(Row("", chat("what comes next", "every token")), tokenizer)
    batch = ConversationBatches((conversation,), 64, tokenizer.pad_id, 0).batch(0, 1)
    before = torch.autograd.grad(NextToken(name="sft").loss(decoder, batch).sum, list(decoder.parameters()))
    batch.targets[0, 1] = 99
    same = torch.autograd.grad(NextToken(name="sft").loss(decoder, batch).sum, list(decoder.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(before, same, strict=True))
    last = int(batch.scored[0].nonzero().max())
    assert batch.targets[0, last] == tokenizer.end_of_turn_id
    batch.targets[0, last] = 99
    changed = torch.autograd.grad(NextToken(name="sft").loss(decoder, batch).sum, list(decoder.parameters()))
    assert not all(torch.equal(one, other) for one, other in zip(before, changed, strict=True))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([], "JSON object"),
        ({}, "'messages' is missing"),
        ({"messages": []}, "'messages' is missing or empty"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "unknown role 'robot'"),
        ({"messages": ["x"]}, "unknown role None"),
        (chat("x", " "), "(assistant) has no content"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no assistant turn"),
        (chat("x", "y", weight=0), "no assistant turn"),
    ],
)
def test_a_bad_row_has_a_reason(record: Any, reason: str) -> None:
    assert reason in (row_problem(record) or "")


def test_bad_rows_are_listed_with_their_lines_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good, doubled = json.dumps(chat("a", "b")), json.dumps(chat("a", "b"))
    path.write_text(f"{good}\n\nnot json\n{doubled}\n{{}}\n")
    with pytest.raises(UserError) as caught:
        read_rows([path])
    text = str(caught.value)
    assert "3 of 4 conversations" in text
    assert "rows.jsonl line 3: not JSON" in text
    assert "rows.jsonl line 4: the same conversation as rows.jsonl line 1" in text
    assert "rows.jsonl line 5: the field 'messages'" in text
    rows, problems = read_rows([path], skip_bad=True)
    assert (len(rows), len(problems)) == (1, 3)


def test_long_rows_are_left_out_whole_and_too_many_stop_the_run(tokenizer: Tokenizer) -> None:
    short = [Row(f"line {n}", chat(f"a {n}", "b")) for n in range(19)]
    long = Row("line 20", chat("a", "every token " * 50))
    found = encode_rows([*short, long], tokenizer, 64)
    assert len(found.conversations) == 19
    assert found.too_long[0][0] == "line 20"
    assert all(isinstance(item, Conversation) and len(item.ids) <= 65 for item in found.conversations)
    with pytest.raises(UserError, match=r"1 of 3 conversations are longer than the context of 64 tokens"):
        encode_rows([*short[:2], long], tokenizer, 64)


def test_a_question_is_never_in_both_splits() -> None:
    rows = [Row(str(n), chat(f"Question {n % 300}", f"answer {n}")) for n in range(600)]
    training, held_out = split_rows(rows)
    asked = [{row.messages[0]["content"] for row in part} for part in (training, held_out)]
    assert not asked[0] & asked[1]
    assert 0 < len(held_out) < 100
    assert len(training) + len(held_out) == 600
