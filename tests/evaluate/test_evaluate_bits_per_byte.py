import math

import numpy as np
import pytest
import torch

from caslon.evaluate.bits_per_byte import chosen_documents, score_documents, windows

START = 0


class TableModel:
    """Predicts the next id from the `reach` ids before it by a fixed random table, so that every window rule can be checked."""

    def __init__(self, vocabulary: int, reach: int = 1, seed: int = 0) -> None:
        self.reach, self.vocabulary = reach, vocabulary
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(vocabulary * 31 + 1, vocabulary, generator=generator)
        self.widest = 0

    def __call__(self, ids):
        self.widest = max(self.widest, ids.shape[1])
        state = torch.zeros_like(ids)
        for back in range(self.reach):
            shifted = torch.nn.functional.pad(ids, (back, 0))[:, : ids.shape[1]]
            state = state * 7 + shifted
        return state.unsqueeze(-1).float()

    def logits(self, hidden):
        return self.table[hidden.squeeze(-1).long() % self.table.shape[0]]


class UniformModel:
    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def __call__(self, ids):
        return torch.zeros(*ids.shape, 1)

    def logits(self, hidden):
        return torch.zeros(*hidden.shape[:-1], self.vocabulary)


class CertainModel(UniformModel):
    """Knows that id + 1 follows id."""

    def __call__(self, ids):
        return ids.unsqueeze(-1).float()

    def logits(self, hidden):
        next_ids = (hidden.squeeze(-1).long() + 1) % self.vocabulary
        return torch.nn.functional.one_hot(next_ids, self.vocabulary).float() * 1e4


def reference_nats(model, ids) -> float:
    whole = torch.tensor([[START, *ids]])
    logprobs = model.logits(model(whole)).log_softmax(-1)
    return -sum(float(logprobs[0, place, token]) for place, token in enumerate(ids))


def test_uniform_bytes_cost_eight_bits():
    documents = [np.frombuffer(b"abc" * 50, dtype=np.uint8), np.frombuffer(b"hello", dtype=np.uint8)]
    score = score_documents(UniformModel(256), documents, [150, 5], start_id=START, context=16)
    assert score.bits_per_byte == pytest.approx(8.0, abs=1e-6)
    assert score.perplexity == pytest.approx(256.0, rel=1e-6)
    assert score_documents(
        UniformModel(256), [documents[0][:3]], [3], start_id=START, context=16
    ).nats == pytest.approx(16.635532)


def test_certainty_costs_nothing():
    score = score_documents(CertainModel(64), [np.arange(1, 40)], [39], start_id=START, context=8)
    assert score.nats == pytest.approx(0.0, abs=1e-9)


def test_windows_of_the_specification():
    assert windows(10, 4, 4) == [(0, 4, 4), (4, 8, 4), (6, 10, 2)]
    assert windows(10, 4, 2) == [(0, 4, 4), (2, 6, 2), (4, 8, 2), (6, 10, 2)]
    assert windows(3, 4, 2) == [(0, 3, 3)]
    assert windows(0, 4, 2) == []


@pytest.mark.parametrize("stride", [1, 2, 3, 8])
@pytest.mark.parametrize("length", [1, 7, 8, 9, 50, 51])
def test_every_token_is_scored_once_with_enough_before_it(length, stride):
    seen = []
    for start, end, scored in windows(length, 8, stride):
        assert end - start <= 8
        for target in range(end - scored, end):
            assert target + 1 - start >= min(target + 1, 8 - stride + 1)
            seen.append(target)
    assert seen == list(range(length))


@pytest.mark.parametrize("stride", [1, 4, 7])
def test_equals_token_by_token_scoring_where_the_reach_is_short(stride):
    model = TableModel(50, reach=2)
    random = np.random.default_rng(5)
    documents = [random.integers(1, 50, size=size) for size in (1, 3, 8, 9, 40, 100, 8)]
    score = score_documents(model, documents, [len(ids) for ids in documents], start_id=START, context=8, stride=stride)
    assert model.widest <= 8
    for ids, item in zip(documents, score.documents, strict=True):
        assert item.nats == pytest.approx(reference_nats(model, ids.tolist()), rel=1e-5)
    assert score.tokens == sum(len(ids) for ids in documents)


def test_an_empty_document_costs_nothing():
    score = score_documents(
        UniformModel(256), [np.array([], dtype=np.int64), np.array([1])], [0, 1], start_id=0, context=4
    )
    assert [item.tokens for item in score.documents] == [0, 1]
    assert score.documents[0].bits_per_byte == 0.0


def test_interval_over_documents_or_over_blocks_when_they_are_few():
    model = TableModel(50)
    random = np.random.default_rng(6)
    many = [random.integers(1, 50, size=30) for _ in range(25)]
    score = score_documents(model, many, [30] * 25, start_id=START, context=16)
    assert score.interval.unit == "documents"
    assert score.interval.low < score.bits_per_byte < score.interval.high
    long = [random.integers(1, 50, size=50_000)]
    few = score_documents(model, long, [50_000], start_id=START, context=64, token_bytes=[1] * 50)
    assert (few.interval.unit, few.interval.units) == ("blocks of 2,000 tokens", 25)
    assert few.interval.low < few.bits_per_byte < few.interval.high
    short = score_documents(model, long[:1], [50_000], start_id=START, context=64)
    assert short.interval is None


def test_progress_ends_at_the_number_of_tokens():
    heard = []
    score_documents(
        UniformModel(9), [np.ones(30, dtype=int)], [30], start_id=0, context=8, report=lambda *pair: heard.append(pair)
    )
    assert heard[-1] == (30, 30)


def test_chosen_documents_fill_the_limit_in_corpus_order():
    sizes = [100] * 50
    chosen = chosen_documents(sizes, 1_000, seed=1)
    assert len(chosen) == 10
    assert chosen == sorted(chosen) == chosen_documents(sizes, 1_000, seed=1)
    assert chosen != list(range(10))
    assert chosen_documents(sizes, 0, seed=1) == list(range(50))
    assert len(chosen_documents([5_000, 6_000], 1_000, seed=1)) == 1


def test_bits_are_nats_over_ln_two():
    score = score_documents(UniformModel(8), [np.array([1, 2])], [3], start_id=0, context=4)
    assert score.bits_per_byte == pytest.approx(2 * 3 / 3)
    assert score.nats == pytest.approx(2 * math.log(8))
