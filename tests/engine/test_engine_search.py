"""Beam search against transformers, contrastive search against a plain recomputation, both in company and under pressure."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_cases import OnlyTheseInTurn, gib_for, plain_greedy, preempt_often, random_prompts

from caslon.engine.engine import Engine
from caslon.engine.request import CacheTooSmall, InvalidParameter, SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.tokenizer.tokenizer import Tokenizer

NEW_TOKENS = 9
LENGTHS = (3, 17, 30)


def beams(**fields: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": NEW_TOKENS, "temperature": 0, **fields})


@pytest.fixture(scope="module")
def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    return random_prompts(tokenizer.vocab_size, LENGTHS, seed=5)


@pytest.fixture(scope="module")
def theirs(decoders: dict[str, Decoder], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    transformers = pytest.importorskip("transformers")
    folder: Path = tmp_path_factory.mktemp("llama")
    save_model_folder(folder, decoders["llama"], tokenizer, sidecar={})
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.promise("engine", "beam search finds the sequences that transformers finds")
def test_beam_search_equals_transformers(
    decoders: dict[str, Decoder], tokenizer: Tokenizer, theirs: Any, prompts: list[list[int]]
) -> None:
    decoder = decoders["llama"]
    # ids that come early in likely answers, so that beams end at different lengths
    stops = tuple({plain_greedy(decoder, prompt, 4)[3] for prompt in prompts})
    ended_early = 0
    with Engine(decoder, tokenizer) as engine:
        shapes = itertools.product((1, 2, 5), (0.5, 1.0, 2.0), (0, 2), (False, True), prompts)
        for count, penalty, ngram, early, prompt in shapes:
            params = beams(
                num_beams=count, n=count, length_penalty=penalty, no_repeat_ngram_size=ngram,
                early_stopping=early, stop_token_ids=stops, ignore_eos=True,
            )  # fmt: skip
            ours = engine.generate([prompt], params)
            found = theirs.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, num_beams=count,
                num_return_sequences=count, max_new_tokens=NEW_TOKENS, length_penalty=penalty, early_stopping=early,
                no_repeat_ngram_size=ngram, eos_token_id=list(stops), pad_token_id=1,
            )[:, len(prompt) :].tolist()  # fmt: skip
            assert [list(one.ids) for one in ours] == [
                row[: len(one.ids)] for row, one in zip(found, ours, strict=True)
            ]
            for row, one in zip(found, ours, strict=True):
                assert set(row[len(one.ids) :]) <= {1}
                assert one.finish_reason == ("stop" if one.ids[-1] in stops else "length")
            ended_early += any(len(one.ids) < NEW_TOKENS for one in ours)
    assert ended_early > 20


def test_beams_in_company_and_under_pressure_are_the_same(
    decoder: Decoder, tokenizer: Tokenizer, prompts: list[list[int]]
) -> None:
    fields = [beams(num_beams=4, n=4, ignore_eos=True), beams(num_beams=5, max_tokens=20, ignore_eos=True), beams()]
    with Engine(decoder, tokenizer) as engine:
        alone = [[one.ids for one in engine.generate([p], f)] for p, f in zip(prompts, fields, strict=True)]
        assert engine.stats().blocks_used == 0
    settings = EngineSettings(
        block_tokens=8, kv_memory_gib=gib_for(decoder, 8 * 25), max_running=16, prefix_cache=False
    )
    with Engine(decoder, tokenizer, settings) as engine:
        together = engine.generate([*prompts, *prompts], [*fields, *fields])
        assert engine.stats().preemptions > 0
        assert engine.stats().blocks_used == 0
        engine._pool.check([])
    found = [one.ids for one in together]
    expected = [ids for group in alone for ids in group]
    assert found == [*expected, *expected]


def test_a_searched_answer_is_like_any_other(engine: Engine, tokenizer: Tokenizer, prompts: list[list[int]]) -> None:
    params = beams(num_beams=3, n=2, logprobs=1, ignore_eos=True)
    handle = engine.submit(prompts[0], params)
    pieces = list(handle)
    best = handle.result()
    assert "".join(piece.text for piece in pieces) == best.text == tokenizer.decode(best.ids, skip_special_tokens=True)
    assert sum((piece.ids for piece in pieces), ()) == best.ids
    assert [entry.id for entry in best.logprobs] == list(best.ids)
    assert len(best.others) == 1
    sums = [sum(entry.logprob for entry in one.logprobs) for one in (best, *best.others)]
    assert sums == sorted(sums, reverse=True)
    scored = engine.score([[*prompts[0], *best.ids]])[0][-NEW_TOKENS:]
    assert [entry.logprob for entry in best.logprobs] == pytest.approx(scored, abs=1e-5)
    stopped = engine.generate([prompts[0]], beams(num_beams=3, stop=(best.text[2:4],), ignore_eos=True))[0]
    assert (stopped.text, stopped.finish_reason) == (best.text[:2], "stop")


def test_a_search_can_be_cancelled_and_time_out(engine: Engine, prompts: list[list[int]]) -> None:
    handle = engine.submit(prompts[0], beams(num_beams=4, max_tokens=150, ignore_eos=True))
    handle.cancel()
    assert handle.result(60).finish_reason == "abort"
    overdue = engine.submit(prompts[0], beams(num_beams=4, max_tokens=150), timeout_seconds=0)
    assert (overdue.result(60).finish_reason, overdue.result().ids, overdue.result().text) == ("timeout", (), "")
    assert engine.stats().blocks_used == 0


def test_what_a_search_cannot_have(decoder: Decoder, tokenizer: Tokenizer, prompts: list[list[int]]) -> None:
    with Engine(decoder, tokenizer, EngineSettings(max_running=4)) as engine:
        with pytest.raises(InvalidParameter, match="num_beams"):
            engine.submit(prompts[0], beams(num_beams=5))
        with pytest.raises(InvalidParameter, match="num_beams"):
            engine.submit(prompts[0], beams(num_beams=2), constraint=OnlyTheseInTurn([3], end=None))
    with (
        Engine(decoder, tokenizer, EngineSettings(kv_dtype="int8")) as engine,
        pytest.raises(InvalidParameter, match="kv_dtype"),
    ):
        engine.submit(prompts[0], beams(num_beams=2))
    with pytest.raises(ValueError, match="speculate needs a cache"):
        EngineSettings(speculate="ngram", retention="window:64")
    with Engine(decoder, tokenizer, EngineSettings(kv_memory_gib=gib_for(decoder, 64))) as engine:
        engine.generate([prompts[0]], beams(num_beams=4))
        with pytest.raises(CacheTooSmall):
            engine.generate([prompts[0]], beams(num_beams=5))


@torch.inference_mode()
def plain_contrastive(decoder: Decoder, prompt: list[int], tokens: int, top_k: int, alpha: float) -> tuple[int, ...]:
    """Return the answer by recomputing everything for every candidate."""
    ids = list(prompt)
    for _ in range(tokens):
        hidden = decoder(torch.tensor([ids]))[0]
        shares, candidates = decoder.logits(hidden[-1]).softmax(dim=-1).topk(top_k)
        scores = []
        for share, token in zip(shares, candidates, strict=True):
            units = F.normalize(decoder(torch.tensor([[*ids, int(token)]]))[0], dim=-1)
            scores.append((1 - alpha) * share - alpha * (units[:-1] @ units[-1]).max())
        ids.append(int(candidates[torch.stack(scores).argmax()]))
    return tuple(ids[len(prompt) :])


@pytest.mark.promise("engine", "contrastive search gives what recomputing every candidate from the start gives")
@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_contrastive_search_equals_a_plain_recomputation(
    decoders: dict[str, Decoder], tokenizer: Tokenizer, prompts: list[list[int]], family: str
) -> None:
    decoder = decoders[family]
    params = SamplingParams(max_tokens=12, temperature=0, penalty_alpha=0.6, top_k=4, ignore_eos=True)
    expected = [plain_contrastive(decoder, prompt, 12, 4, 0.6) for prompt in prompts]
    assert expected != [plain_greedy(decoder, prompt, 12) for prompt in prompts]
    with Engine(decoder, tokenizer) as engine:
        assert [one.ids for one in engine.generate(prompts, params)] == expected
    with Engine(decoder, tokenizer, EngineSettings(max_running=12, max_step_tokens=100, prefix_cache=False)) as engine:
        preempt_often(engine)
        assert [one.ids for one in engine.generate(prompts, params)] == expected
        assert engine.stats().preemptions > 0
