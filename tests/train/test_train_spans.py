import numpy as np
import pytest
import torch
import torch.nn.functional as F

from caslon.errors import UserError
from caslon.model.encoder_config import encoder_from_depth
from caslon.model.encoder_decoder import EncoderDecoder
from caslon.tokenizer.alphabet import byte_tokenizer
from caslon.train.batches import Batch, Row, rows_to_batch, uniform
from caslon.train.objectives.spans import SpanCorruption

TOKENIZER = byte_tokenizer(["<|pad|>"], sentinels=100)
SENTINELS = tuple(TOKENIZER.id_of(f"<|extra_{n}|>") for n in range(100))
END, PAD = TOKENIZER.end_of_text_id, TOKENIZER.pad_id


def objective(**changes: object) -> SpanCorruption:
    return SpanCorruption(SENTINELS, PAD, seed=3, **changes)


def rows(count: int, context: int, short: int = 0) -> Batch:
    draws = np.random.default_rng(0)
    cut = [Row(draws.integers(0, 257, context + 1 - (short if n == 0 else 0)), [n]) for n in range(count)]
    return rows_to_batch(cut, context, END, mask_documents=False)


@pytest.mark.promise("pretraining", "span corruption: source and target together restore the text exactly")
@pytest.mark.parametrize("length", [1, 2, 3, 7, 100, 512, 600])
def test_source_and_target_restore_the_row(length):
    ids = np.random.default_rng(length).integers(0, 257, length)
    for draw in range(20):
        source, target = objective().corrupted(ids, uniform(length, 1, draw), uniform(length, 2, draw))
        assert objective().restored(source.tolist(), target.tolist()) == ids.tolist()
        cut, spans = objective().spans_of(length)
        assert len(source) == length - cut + spans
        assert len(target) == cut + spans + 1
        marks = [id for id in target.tolist() if id in SENTINELS]
        assert marks == list(SENTINELS[: spans + 1])  # in order, and one more at the end
        assert target[-1] == marks[-1]
        assert [id for id in source.tolist() if id in SENTINELS] == marks[:-1]


def test_fifteen_percent_are_cut_in_spans_of_three():
    assert objective().spans_of(512) == (77, 26)
    assert objective(share=0.5, mean_span=10.0).spans_of(100) == (50, 5)
    starts = np.zeros(100)
    for draw in range(2_000):
        ids = np.arange(100)
        _, target = objective().corrupted(ids, uniform(100, 5, draw), uniform(100, 6, draw))
        starts[[id for id in target.tolist() if id < 100]] += 1
    assert 0.04 < starts.min() / 2_000 < starts.max() / 2_000 < 0.21  # every place may go, the ends a little less often
    assert starts.sum() == 2_000 * 15


def test_rows_of_one_length_make_tables_without_padding_and_repeat():
    plain = rows(6, 64)
    batch, again = (objective().collate(plain, range(12, 18)) for _ in range(2))
    assert torch.equal(batch.ids, again.ids)
    assert batch.document_ids is None
    assert batch.scored.all()
    assert not torch.equal(batch.ids, objective().collate(plain, range(18, 24)).ids)
    for ids, source, target in zip(plain.ids.tolist(), batch.ids.tolist(), batch.targets.tolist(), strict=True):
        assert objective().restored(source, target) == ids


def test_a_short_row_is_filled_up_and_neither_seen_nor_scored():
    batch = objective().collate(rows(3, 64, short=30), range(3))
    length = 64 - 30
    cut, spans = objective().spans_of(length)
    assert int(batch.scored[0].sum()) == cut + spans + 1
    assert batch.document_ids is not None
    assert int((batch.document_ids[0] == 0).sum()) == length - cut + spans
    assert (batch.ids[0][batch.document_ids[0] < 0] == PAD).all()
    model = EncoderDecoder(encoder_from_depth("t5", 1, vocab_size=TOKENIZER.vocab_size, context=64, hidden_size=64))
    model.initialise(1)
    first = next(batch.split(1))
    changed = first.ids.clone()
    changed[first.document_ids < 0] = 5
    other = Batch(changed, first.targets, first.scored, first.positions, first.document_ids, ())
    assert objective().loss(model, other).sum.item() == pytest.approx(objective().loss(model, first).sum.item())


def test_the_loss_is_that_of_transformers_with_shifted_targets():
    model = EncoderDecoder(encoder_from_depth("t5", 1, vocab_size=TOKENIZER.vocab_size, context=64, hidden_size=64))
    model.initialise(1)
    batch = objective().collate(rows(3, 64), range(3))
    model.inner.config.decoder_start_token_id = PAD
    model.inner.config.pad_token_id = PAD
    theirs = model.inner(input_ids=batch.ids, labels=batch.targets)
    found = objective(chunk_tokens=7).loss(model, batch)
    assert found.sum.item() / found.count == pytest.approx(theirs.loss.item(), rel=1e-5)
    expected = torch.autograd.grad(
        F.cross_entropy(theirs.logits.flatten(0, 1), batch.targets.flatten()), model.head_weight
    )
    (found.sum / found.count).backward()
    torch.testing.assert_close(model.head_weight.grad, expected[0], rtol=1e-4, atol=1e-6)


def test_too_few_sentinels_say_how_many_are_needed():
    with pytest.raises(UserError, match="a row of 2048 tokens needs 103 sentinels, the tokenizer has 100"):
        objective().refuse_too_few_sentinels(2_048)
    objective().refuse_too_few_sentinels(1_024)
