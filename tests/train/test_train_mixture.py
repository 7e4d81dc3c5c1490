from collections import Counter

import numpy as np
import pytest
import torch

from caslon.errors import UserError
from caslon.train.batches import Documents, PackedBatches, WindowBatches
from caslon.train.mixture import BLOCK_ROWS, MixedBatches, mixed

END, CONTEXT = 1, 8


def data(first: int, documents: int) -> Documents:
    """Return documents whose ids all lie from `first` on, so that a row says where it comes from."""
    pieces = [np.array([*range(first, first + 9), END]) for _ in range(documents)]
    return Documents(np.concatenate(pieces), np.arange(documents + 1) * 10, END)


def parts(kind: type[PackedBatches] = PackedBatches) -> tuple[PackedBatches, ...]:
    return tuple(kind(data(first, 6), CONTEXT, 5) for first in (100, 200, 300))


@pytest.mark.promise(
    "pretraining", "in a mixture each data set's share of the rows is within 1 % of its weight, and logged"
)
@pytest.mark.parametrize("weights", [(0.7, 0.2, 0.1), (1, 1, 1), (5.0, 3.0, 0.333)])
def test_shares_of_ten_thousand_rows_are_those_of_the_weights(weights):
    batches = MixedBatches(parts(), weights, seed=2)
    rows = Counter(int(ids.max()) // 100 for ids in batches.batch(0, 10_000).ids)
    for number, weight in enumerate(weights):
        assert rows[number + 1] / 10_000 == pytest.approx(weight / sum(weights), abs=0.001)
        assert batches.shares(10_000)[number] == rows[number + 1] / 10_000


def test_shares_are_near_the_weights_from_the_first_rows_on_and_counted_right():
    batches = MixedBatches(parts(), (0.6, 0.3, 0.1), seed=2)
    for rows in (1, 7, 300, BLOCK_ROWS, 2 * BLOCK_ROWS + 12):
        found = Counter(batches.place(number)[0] for number in range(rows))
        assert batches.shares(rows) == [found[part] / rows for part in range(3)]
    assert batches.shares(300)[0] == pytest.approx(0.6, abs=0.1)


def test_each_data_set_gives_its_own_rows_one_after_another():
    batches = MixedBatches(parts(), (0.6, 0.3, 0.1), seed=2)
    places = [batches.place(number) for number in range(2_500)]
    for part in range(3):
        own = [number for found, number in places if found == part]
        assert sorted(own) == list(range(len(own)))
    assert batches.rows_per_epoch == 8 * 10  # eight rows of the rarest, which gets one in ten


@pytest.mark.parametrize("kind", [PackedBatches, WindowBatches])
def test_a_batch_is_a_function_of_its_number(kind):
    whole = MixedBatches(parts(kind), (0.6, 0.3, 0.1), seed=2).batch(124, 9)
    other = MixedBatches(parts(kind), (0.6, 0.3, 0.1), seed=2)
    other.batch(3, 9)
    assert torch.equal(other.batch(124, 9).ids, whole.ids)
    assert {source // 6 for source in whole.sources} <= {0, 1, 2}


def test_one_data_set_is_no_mixture_and_a_weight_below_a_thousandth_is_refused():
    only = parts()[:1]
    assert mixed(only, (3.0,), 0) is only[0]
    with pytest.raises(UserError, match="less than one row"):
        MixedBatches(parts(), (1.0, 1.0, 0.0001), 0).batch(0, 1)
