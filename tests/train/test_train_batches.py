from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from caslon.errors import UserError
from caslon.model.attention import document_attention
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.train.batches import (
    Batch,
    ConversationBatches,
    Documents,
    PackedBatches,
    WindowBatches,
    best_fit,
    document_starts,
    random_order,
)
from caslon.train.conversations import Conversation

END = 1
CONTEXT = 8


def documents(*lengths: int) -> Documents:
    """Return documents of distinct ids (from 10 on), each closed by the end token."""
    pieces = [[*range(10 + 100 * number, 10 + 100 * number + length), END] for number, length in enumerate(lengths)]
    starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64)
    return Documents(np.concatenate(pieces).astype(np.uint16), starts, END)


def scored_targets(batch: Batch) -> list[int]:
    return batch.targets[batch.scored].tolist()


def epoch_targets(batches: PackedBatches, epoch: int) -> list[int]:
    found = []
    for row in range(epoch * batches.rows_per_epoch, (epoch + 1) * batches.rows_per_epoch):
        found += scored_targets(batches.batch(row, 1))
    return found


@pytest.mark.promise("pretraining", "in packed rows every id of the data set is a target exactly once an epoch")
@pytest.mark.parametrize("context", [1 + 1, 5, 8, 200])
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_id_is_a_target_once_an_epoch(context: int, epoch: int) -> None:
    source = documents(3, 0, 20, 7, 1, 16)
    targets = epoch_targets(PackedBatches(source, context, seed=4), epoch)
    assert Counter(targets) == Counter(source.ids.tolist())


def test_rows_overlap_by_one_id_and_only_the_last_is_filled_up() -> None:
    batches = PackedBatches(documents(3, 20, 7, 16), CONTEXT, seed=4)
    rows = [batches.batch(number, 1) for number in range(batches.rows_per_epoch)]
    for left, right in pairwise(rows):
        assert left.scored.all()
        assert left.targets[0, -1] == right.ids[0, 0]
    assert rows[0].ids[0, 0] == END


@pytest.mark.promise("pretraining", "the order of an epoch repeats for the same seed and differs for another")
def test_epochs_differ_and_repeat_for_the_same_seed() -> None:
    source = documents(*range(1, 30))
    first = epoch_targets(PackedBatches(source, CONTEXT, seed=1), 0)
    assert first == epoch_targets(PackedBatches(source, CONTEXT, seed=1), 0)
    assert first != epoch_targets(PackedBatches(source, CONTEXT, seed=1), 1)
    assert first != epoch_targets(PackedBatches(source, CONTEXT, seed=2), 0)


def test_a_batch_depends_on_its_number_alone() -> None:
    source = documents(*range(1, 30))
    forward = PackedBatches(source, CONTEXT, seed=1)
    expected = [forward.batch(step, 4) for step in range(20)]
    fresh = PackedBatches(source, CONTEXT, seed=1)
    for step in (17, 3, 11):
        assert torch.equal(fresh.batch(step, 4).ids, expected[step].ids)


def test_the_global_generators_are_left_alone() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    numpy_before, torch_before = np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    PackedBatches(documents(5, 6), CONTEXT, seed=1).batch(0, 4)
    WindowBatches(documents(5, 6), CONTEXT, seed=1).batch(0, 4)
    assert np.random.get_state()[1].tolist() == numpy_before  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_positions_and_document_numbers_restart_at_the_end_token() -> None:
    row = PackedBatches(documents(3), CONTEXT, seed=0).batch(0, 1)
    assert row.ids.tolist() == [[1, 10, 11, 12, 1, 1, 1, 1]]
    assert row.positions[0, :5].tolist() == [0, 1, 2, 3, 0]
    assert row.document_ids is not None
    assert row.document_ids[0, :5].tolist() == [1, 1, 1, 1, 2]
    assert row.scored.tolist() == [[True] * 4 + [False] * 4]


@pytest.mark.promise(
    "pretraining", "in a packed row a document's logits are those it has alone; without masks they are not"
)
def test_logits_of_a_document_in_a_row_equal_its_logits_alone() -> None:
    decoder = Decoder(DecoderConfig.from_depth(2, family="qwen3", vocab_size=700, context=32, hidden_size=32))
    decoder.initialise(0)
    with torch.no_grad():  # at the initial 0.02 attention hardly matters; this makes a leak visible
        for parameter in decoder.parameters():
            parameter.mul_(5.0)
    source = documents(4, 6, 5)
    batch = PackedBatches(source, 32, seed=0).batch(0, 1)
    assert batch.document_ids is not None
    ids = batch.ids[0].tolist()
    start = ids.index(110)
    alone = torch.tensor([[END, *range(110, 116)]])
    with torch.no_grad():
        packed = decoder.logits(decoder(batch.ids, batch.positions, document_attention(batch.document_ids)))
        unmasked = decoder.logits(decoder(batch.ids))
        expected = decoder.logits(decoder(alone))
    part = slice(start - 1, start + 6)
    torch.testing.assert_close(packed[:, part], expected, rtol=0, atol=1e-5)
    if start > 1:
        assert (unmasked[:, part] - expected).abs().max() > 1e-3


@pytest.mark.promise("pretraining", "windows are a pure function of seed and step, whatever was drawn before")
def test_windows_repeat_and_stay_inside() -> None:
    source = documents(40, 30)
    batches = WindowBatches(source, CONTEXT, seed=3)
    one, other = batches.batch(5, 16), WindowBatches(source, CONTEXT, seed=3).batch(5, 16)
    assert torch.equal(one.ids, other.ids)
    assert not torch.equal(one.ids, batches.batch(6, 16).ids)
    stream = source.ids.tolist()
    for ids, targets in zip(one.ids.tolist(), one.targets.tolist(), strict=True):
        row = [*ids, targets[-1]]
        assert any(stream[place : place + len(row)] == row for place in range(len(stream)))


def test_windows_reach_every_place_about_equally_often() -> None:
    source = documents(30, 20)
    batches = WindowBatches(source, CONTEXT, seed=3)
    places = len(source.ids) - CONTEXT
    first = Counter(batches.batch(0, 200 * places).ids[:, 0].tolist())
    assert len(first) == len(set(source.ids[:places].tolist()))
    assert all(120 < first[id] < 300 for id in range(10, 39))


@pytest.mark.promise("pretraining", "an id outside the vocabulary is refused with its position")
@pytest.mark.parametrize("kind", [PackedBatches, WindowBatches])
def test_an_id_outside_the_vocabulary_is_refused_with_its_position(kind: type[PackedBatches]) -> None:
    source = documents(3, 20)
    source.ids[13] = 900
    batches = kind(replace(source, vocab_size=900), CONTEXT, 0)
    with pytest.raises(UserError, match="id 900 at position 13 is outside the vocabulary of 900"):
        for step in range(40):
            batches.batch(step, 1)


def test_order_is_a_fixed_function_of_its_key() -> None:
    assert random_order(6, 1, 0).tolist() == [2, 0, 1, 4, 5, 3]
    assert random_order(50, 1, 0).tolist() != random_order(50, 1, 1).tolist()


def conversation(first: int, length: int) -> Conversation:
    ids = tuple(range(first, first + length))
    return Conversation(ids, tuple(place >= length // 2 for place in range(length)))


def test_conversations_are_packed_whole_and_apart() -> None:
    conversations = tuple(conversation(100 * n, length) for n, length in enumerate((4, 9, 3, 5, 2), start=1))
    batches = ConversationBatches(conversations, CONTEXT, pad_id=2, seed=0)
    batch = batches.batch(0, batches.rows_per_epoch)
    expected = Counter(
        id for item in conversations for id, scored in zip(item.ids[1:], item.scored[1:], strict=True) if scored
    )
    assert Counter(scored_targets(batch)) == expected
    assert batch.document_ids is not None
    for ids, documents_, positions in zip(
        batch.ids.tolist(), batch.document_ids.tolist(), batch.positions.tolist(), strict=True
    ):
        for number in set(documents_) - {-1}:
            places = [place for place, found in enumerate(documents_) if found == number]
            assert [positions[place] for place in places] == list(range(len(places)))
            assert len({ids[place] // 100 for place in places}) == 1


def test_best_fit_fills_rows_and_never_overfills() -> None:
    lengths = [5, 3, 8, 2, 6, 4, 1]
    groups = best_fit(lengths, 8)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in group) <= 8 for group in groups)
    assert len(groups) == 4  # 29 in all: no fewer is possible


def test_document_starts_are_those_of_the_flattened_rows_and_padded_with_empty_documents() -> None:
    document_ids = torch.tensor([[1, 1, 2, 2], [0, 0, 0, 0], [3, 4, 5, 5]])
    starts = document_starts(document_ids)
    assert starts.tolist() == [0, 2, 4, 8, 9, 10, 12, 12, 12]
    assert starts.dtype == torch.int32
