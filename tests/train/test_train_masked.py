import numpy as np
import pytest
import torch
import torch.nn.functional as F

from caslon.model.encoder import Encoder
from caslon.model.encoder_config import encoder_from_depth
from caslon.tokenizer.alphabet import byte_tokenizer
from caslon.train.batches import Batch, Row, rows_to_batch
from caslon.train.objectives.masked import MaskedTokens, Vocabulary

TOKENIZER = byte_tokenizer(["<|mask|>"])
VOCABULARY = Vocabulary.of(TOKENIZER, "<|mask|>")
MASK, END = TOKENIZER.id_of("<|mask|>"), TOKENIZER.end_of_text_id
TEXT = b"the moon is red; the ships, they go by night 1666 and nobody minds. "


def rows(count: int, context: int, short: int = 0) -> Batch:
    stream = np.frombuffer(TEXT * (count * context // len(TEXT) + 2), dtype=np.uint8).astype(np.int64)
    cut = [Row(stream[n * context : (n + 1) * context + 1 - short], [n]) for n in range(count)]
    for row in cut:
        row.ids.flags.writeable = True
        row.ids[7] = END
    return rows_to_batch(cut, context, END, mask_documents=True)


@pytest.mark.promise(
    "pretraining", "mlm chooses 15.0 % of the tokens and makes of them 80 % masks, 10 % others, 10 % nothing"
)
@pytest.mark.parametrize("whole_words", [False, True])
def test_shares_over_two_hundred_thousand_tokens(whole_words):
    plain = rows(800, 256)
    batch = MaskedTokens(VOCABULARY, seed=1, whole_words=whole_words).collate(plain, range(800))
    candidates = plain.ids != END
    assert int(candidates.sum()) > 200_000
    chosen = batch.scored
    assert float(chosen.sum() / candidates.sum()) == pytest.approx(0.15, abs=0.003)
    given, wanted = batch.ids[chosen], batch.targets[chosen]
    masked, same = given == MASK, given == wanted
    assert float(masked.float().mean()) == pytest.approx(0.80, abs=0.01)
    assert float(same.float().mean()) == pytest.approx(0.10, abs=0.01)
    assert float((~masked & ~same).float().mean()) == pytest.approx(0.10, abs=0.01)
    assert torch.equal(batch.targets, plain.ids)
    assert torch.equal(batch.ids[~chosen], plain.ids[~chosen])
    assert not (chosen & (plain.ids == END)).any()
    assert int(given[~masked].max()) < 256  # random tokens are never special ones


def test_masks_follow_from_seed_and_row_so_that_epochs_differ_and_steps_repeat():
    objective, plain = MaskedTokens(VOCABULARY, seed=1), rows(4, 64)
    first, again = (objective.collate(plain, range(8, 12)) for _ in range(2))
    assert torch.equal(first.ids, again.ids)
    for other in (objective.collate(plain, range(108, 112)), MaskedTokens(VOCABULARY, 2).collate(plain, range(8, 12))):
        assert not torch.equal(first.scored, other.scored)


@pytest.mark.promise("pretraining", "padding never enters a loss")
def test_what_fills_up_a_short_row_is_never_hidden():
    batch = MaskedTokens(VOCABULARY, seed=1, share=0.9).collate(rows(50, 32, short=12), range(50))
    assert not batch.scored[:, 20:].any()
    assert batch.scored[:, :20].any()


def test_whole_words_are_hidden_whole():
    plain = rows(20, 128)
    batch = MaskedTokens(VOCABULARY, seed=3, whole_words=True).collate(plain, range(20))
    for ids, chosen in zip(plain.ids.tolist(), batch.scored.tolist(), strict=True):
        for left, right, one, other in zip(ids, ids[1:], chosen, chosen[1:], strict=False):
            if all(id < 256 and (bytes([id]).isalnum()) for id in (left, right)):
                assert one == other


def test_a_batch_of_few_tokens_has_a_target_all_the_same():
    plain = rows(1, 8)
    for start in range(40):
        assert MaskedTokens(VOCABULARY, seed=1, share=0.01).collate(plain, range(start, start + 1)).target_count >= 1


def encoder(next_sentence: bool = False) -> Encoder:
    made = Encoder(
        encoder_from_depth(
            "bert", 1, vocab_size=TOKENIZER.vocab_size, context=32, hidden_size=32, num_attention_heads=2,
            next_sentence=next_sentence,
        )
    )  # fmt: skip
    made.initialise(0)
    return made


def test_the_loss_is_the_cross_entropy_of_the_hidden_tokens():
    model, objective = encoder(), MaskedTokens(VOCABULARY, seed=1, chunk_tokens=5)
    batch = objective.collate(rows(4, 32), range(4))
    found = objective.loss(model, batch)
    mask = batch.document_ids[:, None, :, None] == batch.document_ids[:, None, None, :]
    logits = model.inner(input_ids=batch.ids, position_ids=batch.positions, attention_mask=mask).logits
    expected = F.cross_entropy(logits[batch.scored], batch.targets[batch.scored], reduction="sum")
    assert found.sum.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.count == objective.count(batch) == int(batch.scored.sum())
    gradients = []
    for loss in (found.sum, expected):
        model.zero_grad()
        loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        measured = objective.loss(model, batch)
    measures = objective.measures(float(measured.sum), measured.count, measured.metrics)
    right = (logits.argmax(-1) == batch.targets)[batch.scored].float().mean()
    assert measures == {"accuracy": pytest.approx(float(right))}


def test_the_next_sentence_task_pairs_rows_and_adds_its_gradient():
    objective = MaskedTokens(VOCABULARY, seed=4, next_sentence=True)
    plain = rows(64, 32)
    batch = objective.collate(plain, range(64))
    assert 16 < int(batch.labels.sum()) < 48
    assert (batch.targets[:, 0] == END).all() and (batch.targets[:, 16] == END).all()
    for number in range(64):
        second = plain.ids[(number + 1) % 64 if batch.labels[number] else number, 17:]
        assert torch.equal(batch.targets[number, 17:], second)
    model = encoder(next_sentence=True)
    found = objective.loss(model, batch)
    found.sum.backward()
    assert model.inner.cls.seq_relationship.weight.grad.abs().max() > 0
    measures = objective.measures(float(found.sum.detach()), found.count, found.metrics)
    assert measures["next_sentence_loss"] == pytest.approx(np.log(2), abs=0.1)
    parts = [objective.loss(model, part).metrics["next_sentence"] for part in batch.split(16)]
    assert sum(map(float, parts)) == pytest.approx(float(found.metrics["next_sentence"]), rel=1e-4)
