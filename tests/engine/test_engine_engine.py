"""The engine as its callers see it: streaming, ends, cancelling, threads, errors, closing."""

import gc
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import CONTEXT, OnlyTheseInTurn, gib_for, plain_greedy, random_prompts

from caslon.engine.activity import Activity
from caslon.engine.blocks import BlockPool
from caslon.engine.engine import Engine
from caslon.engine.golden import golden_prompts, write_golden_prompts
from caslon.engine.request import (
    CacheTooSmall,
    ContextLengthExceeded,
    EngineClosed,
    InvalidParameter,
    Piece,
    SamplingParams,
    Sequence,
)
from caslon.engine.scheduler import Scheduler
from caslon.engine.settings import EngineSettings
from caslon.errors import CaslonError, UserError
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.tokenizer.tokenizer import Tokenizer

MakeEngine = Callable[..., Engine]
WAIT_SECONDS = 60
PROMPT = [40, 50, 60, 70]


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "caslon-engine"]


def greedy(max_tokens: int = 12, **fields: Any) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, **fields)


def test_pieces_are_the_answer(engine: Engine, tokenizer: Tokenizer) -> None:
    for seed in range(6):
        handle = engine.submit(PROMPT, SamplingParams(max_tokens=25, seed=seed, logprobs=1, ignore_eos=True))
        pieces = list(handle)
        completion = handle.result(WAIT_SECONDS)
        assert "".join(piece.text for piece in pieces) == completion.text
        assert completion.text == tokenizer.decode(completion.ids, skip_special_tokens=True)
        assert sum((piece.ids for piece in pieces), ()) == completion.ids
        assert sum((piece.logprobs for piece in pieces), ()) == completion.logprobs
        assert [entry.id for entry in completion.logprobs] == list(completion.ids)
        assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert (pieces[-1].finish_reason, len(completion.ids)) == ("length", 25)
        assert (
            completion.text
            == engine.generate([PROMPT], SamplingParams(max_tokens=25, seed=seed, ignore_eos=True))[0].text
        )
    assert engine.stats().blocks_used == 0


def test_stop_ids_and_strings(engine: Engine, tokenizer: Tokenizer) -> None:
    whole = engine.generate([PROMPT], greedy(ignore_eos=True))[0]
    third = whole.ids[2]
    first_at = whole.ids.index(third)
    stopped = engine.generate([PROMPT], greedy(stop_token_ids=(third,)))[0]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", third)
    assert stopped.ids == whole.ids[: first_at + 1]
    assert stopped.text == tokenizer.decode(whole.ids[:first_at], skip_special_tokens=True)
    later = engine.generate([PROMPT], greedy(stop_token_ids=(third,), min_tokens=12))[0]
    assert (len(later.ids), later.finish_reason) == (12, "length")
    assert third not in later.ids
    mark = whole.text[3:5]
    cut = engine.generate([PROMPT], greedy(stop=(mark,)))[0]
    assert (cut.finish_reason, cut.stop_reason) == ("stop", mark)
    assert cut.text == whole.text[: whole.text.index(mark)]


def test_every_eos_id_stops(decoder: Decoder, tokenizer: Tokenizer) -> None:
    with Engine(decoder, tokenizer) as engine:
        ids = engine.generate([PROMPT], greedy(ignore_eos=True))[0].ids
    with Engine(decoder, tokenizer, generation_config={"eos_token_id": [tokenizer.end_of_text_id, ids[3]]}) as engine:
        completion = engine.generate([PROMPT], greedy())[0]
        assert completion.ids == ids[: ids.index(ids[3]) + 1]
        assert completion.finish_reason == "stop"
        assert engine.generate([PROMPT], greedy(ignore_eos=True))[0].ids == ids


def test_folder_defaults_give_way_to_the_request(decoder: Decoder, tokenizer: Tokenizer) -> None:
    with Engine(decoder, tokenizer, generation_config={"temperature": 0.5, "top_k": 7}) as engine:
        assert engine.params().temperature == 0.5
        assert (engine.params(temperature=1.5).temperature, engine.params(temperature=1.5).top_k) == (1.5, 7)


def test_too_long_is_refused_with_the_numbers(engine: Engine, engine_with: MakeEngine, decoder: Decoder) -> None:
    with pytest.raises(ContextLengthExceeded) as raised:
        engine.submit([40] * (CONTEXT - 5), greedy(6))
    assert (raised.value.prompt_tokens, raised.value.max_tokens, raised.value.limit) == (CONTEXT - 5, 6, CONTEXT)
    assert "code: context_length_exceeded" in str(raised.value)
    assert raised.value.exit_code == 2
    with pytest.raises(ContextLengthExceeded):
        engine.score([[40] * (CONTEXT + 1)])
    small = engine_with(kv_memory_gib=gib_for(decoder, 64), max_model_tokens=100)
    with pytest.raises(CacheTooSmall) as too_small:
        small.generate([[40] * 60], greedy(10))
    assert too_small.value.pool_tokens == 64
    with pytest.raises(UserError, match="positions"):
        engine_with(max_model_tokens=CONTEXT + 1)
    with pytest.raises(UserError, match="no room"):
        engine_with(kv_memory_gib=1e-9)


def test_bad_prompts_are_refused(engine: Engine, tokenizer: Tokenizer) -> None:
    for prompt in ([], [tokenizer.vocab_size], [-1], [5, 10**9]):
        with pytest.raises(InvalidParameter, match="prompt"):
            engine.submit(prompt, greedy())
    with pytest.raises(InvalidParameter, match="logit_bias"):
        engine.submit(PROMPT, greedy(logit_bias={tokenizer.vocab_size: 1.0}))
    assert engine.stats().waiting == 0


def test_text_prompts(engine: Engine, tokenizer: Tokenizer) -> None:
    text = "The quick <|endoftext|>"
    ids = tokenizer.encode(text)
    assert tokenizer.end_of_text_id not in ids
    assert engine.generate([text], greedy())[0].ids == engine.generate([ids], greedy())[0].ids


def test_cancelling_frees_the_blocks(engine: Engine) -> None:
    handle = engine.submit(PROMPT, greedy(150, ignore_eos=True))
    first = next(iter(handle))
    handle.cancel()
    completion = handle.result(WAIT_SECONDS)
    assert completion.finish_reason == "abort"
    assert completion.ids[: len(first.ids)] == first.ids
    assert len(completion.ids) < 150
    assert engine.stats().blocks_used == 0
    handle.cancel()  # too late and twice: harmless
    assert engine.submit(PROMPT, greedy(2)).result(WAIT_SECONDS).finish_reason in ("length", "stop")
    assert engine.stats().finished["abort"] == 1


def test_cancelling_what_still_waits(engine_with: MakeEngine) -> None:
    engine = engine_with(max_running=1)
    running = engine.submit(PROMPT, greedy(60, ignore_eos=True))
    waiting = engine.submit(PROMPT, greedy(60, ignore_eos=True))
    waiting.cancel()
    completion = waiting.result(WAIT_SECONDS)
    assert (completion.finish_reason, completion.ids, completion.times.first_token) == ("abort", (), None)
    assert running.result(WAIT_SECONDS).finish_reason == "length"


def test_many_threads_get_their_own_answers(engine_with: MakeEngine, decoder: Decoder, tokenizer: Tokenizer) -> None:
    engine = engine_with(max_running=8, max_step_tokens=40, kv_memory_gib=gib_for(decoder, 400))
    prompts = random_prompts(tokenizer.vocab_size, tuple(range(1, 33)), seed=9)
    answers: dict[int, tuple[int, ...]] = {}

    def ask(number: int) -> None:
        if number % 3:
            answers[number] = engine.submit(prompts[number], greedy(8, ignore_eos=True)).result(WAIT_SECONDS).ids
        else:
            answers[number] = engine.generate([prompts[number]], greedy(8, ignore_eos=True))[0].ids

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert answers == {number: plain_greedy(decoder, prompt, 8) for number, prompt in enumerate(prompts)}
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.blocks_used) == (0, 0, 0)
    assert stats.generated_tokens == 32 * 8
    assert stats.prompt_tokens == sum(map(len, prompts))
    assert len(engine_threads()) == 1


def test_a_failing_step_fails_its_own_sequences_only(
    engine: Engine, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = engine._runner.run
    poisoned = [41, 51, 61]

    def fail(plan: Any) -> Any:
        if any(list(chunk.sequence.prompt) == poisoned for chunk in plan):
            raise RuntimeError("the lights went out")
        return run(plan)

    monkeypatch.setattr(engine._runner, "run", fail)
    completion = engine.submit(poisoned, greedy()).result(WAIT_SECONDS)
    assert completion.finish_reason == "error"
    assert "the lights went out" in str(completion.error)
    with pytest.raises(CaslonError, match="the lights went out"):
        engine.generate([poisoned], greedy())
    assert engine.generate([PROMPT], greedy(ignore_eos=True))[0].ids == plain_greedy(decoder, PROMPT, 12)
    assert engine.stats().blocks_used == 0


def test_weights_that_are_not_numbers_end_the_request(tokenizer: Tokenizer, decoder: Decoder) -> None:
    broken = Decoder(decoder.config)
    broken.load_state_dict(decoder.state_dict())
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    with Engine(broken, tokenizer) as engine, pytest.raises(CaslonError, match="model_output_not_finite"):
        engine.generate([PROMPT], greedy())


def test_a_failing_listener_is_aborted_and_disturbs_nobody(engine: Engine) -> None:
    def listener(piece: Piece) -> None:
        raise OSError("the client went away")

    handle = engine.submit(PROMPT, greedy(100, ignore_eos=True), on_piece=listener)
    assert handle.result(WAIT_SECONDS).finish_reason == "abort"
    assert engine.submit(PROMPT, greedy(3, ignore_eos=True)).result(WAIT_SECONDS).finish_reason == "length"


def test_a_listener_gets_the_pieces(engine: Engine) -> None:
    pieces: list[Piece] = []
    completion = engine.submit(PROMPT, greedy(), on_piece=pieces.append).result(WAIT_SECONDS)
    assert "".join(piece.text for piece in pieces) == completion.text
    assert pieces[-1].finish_reason == completion.finish_reason


def test_closing_ends_everything(engine: Engine) -> None:
    handles = [engine.submit(PROMPT, greedy(150, ignore_eos=True)) for _ in range(20)]
    engine.close()
    assert {handle.result(WAIT_SECONDS).finish_reason for handle in handles} <= {"abort", "length"}
    assert handles[-1].is_done
    assert engine.stats().blocks_used == 0
    assert not engine_threads()
    engine.close()
    with pytest.raises(EngineClosed):
        engine.submit(PROMPT, greedy())
    with pytest.raises(EngineClosed):
        engine.generate([PROMPT], greedy())


def test_generate_leaves_no_thread_and_no_engine_behind(decoder: Decoder, tokenizer: Tokenizer) -> None:
    engine = Engine(decoder, tokenizer)
    engine.generate([PROMPT], greedy(2))
    assert not engine_threads()
    engine.submit(PROMPT, greedy(2)).result(WAIT_SECONDS)
    assert len(engine_threads()) == 1
    thread, gone = engine_threads()[0], weakref.ref(engine)
    del engine
    gc.collect()
    thread.join(WAIT_SECONDS)
    assert gone() is None
    assert not thread.is_alive()


def test_an_interrupted_generate_frees_its_blocks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run = engine._runner.run
    steps = 0

    def interrupted(plan: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise KeyboardInterrupt
        return run(plan)

    monkeypatch.setattr(engine._runner, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.generate([PROMPT, [44, 55]], greedy(ignore_eos=True))
    assert engine.stats().blocks_used == 0
    assert len(engine.generate([PROMPT], greedy(ignore_eos=True))[0].ids) == 12


def test_times_and_stats(engine: Engine) -> None:
    completion = engine.generate([PROMPT], greedy(5, ignore_eos=True))[0]
    times = completion.times
    assert times.queued is not None
    assert times.first_token is not None
    assert 0 <= times.queued <= times.first_token <= times.end
    stats = engine.stats()
    assert (stats.steps, stats.generated_tokens, stats.prompt_tokens) == (5, 5, 4)
    assert stats.finished == {"length": 1}
    config = engine.decoder.config
    bytes_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert stats.kv_bytes == stats.blocks_total * engine.settings.block_tokens * bytes_per_token


def test_golden_prompts_are_replayed_at_load(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model_folder(tmp_path, decoder, tokenizer, sidecar={})
    Engine.load(tmp_path).close()
    prompts = random_prompts(tokenizer.vocab_size, (3, 20, CONTEXT))
    write_golden_prompts(tmp_path, decoder, prompts)
    golden = json.loads((tmp_path / "golden.json").read_text())
    assert golden == golden_prompts(decoder, prompts)
    assert tuple(golden[1]["ids"]) == plain_greedy(decoder, prompts[1], len(golden[1]["ids"]))
    assert len(golden) == 2  # the prompt that fills the context has no answer
    Engine.load(tmp_path).close()
    Engine.load(tmp_path, EngineSettings(max_model_tokens=10)).close()
    golden[1]["ids"][1] ^= 1
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(CaslonError, match=r"golden prompt 2 of 2 .* token 1 is"):
        Engine.load(tmp_path)
    Engine.load(tmp_path, verify=False).close()
    for content in ("{}", '["x"]', "not json", '[{"ids": [1]}]'):
        (tmp_path / "golden.json").write_text(content)
        with pytest.raises(UserError, match="golden"):
            Engine.load(tmp_path)


def test_the_interpreter_exits_with_a_request_under_way(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model_folder(tmp_path, decoder, tokenizer, sidecar={})
    script = (
        "import sys, pathlib\n"
        "from caslon.engine.engine import Engine, EngineSettings\n"
        "from caslon.engine.request import SamplingParams\n"
        "engine = Engine.load(pathlib.Path(sys.argv[1]), EngineSettings(threads=1))\n"
        "handle = engine.submit([40, 50], SamplingParams(max_tokens=150, ignore_eos=True))\n"
        "next(iter(handle))\n"
        "print('leaving')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_settings_reach_the_scheduler(decoder: Decoder, tokenizer: Tokenizer) -> None:
    with Engine(decoder, tokenizer, EngineSettings(max_running=3, max_step_tokens=9, block_tokens=32)) as engine:
        assert (engine._scheduler.max_running, engine._scheduler.max_step_tokens) == (3, 9)
        assert engine._pool.count == 3 * CONTEXT // 32
        assert engine.model_context == CONTEXT


def test_a_constrained_answer_says_what_it_may(engine: Engine, tokenizer: Tokenizer) -> None:
    said = tokenizer.encode("The fox")
    for ignore_eos, ends in ((False, (*said, tokenizer.end_of_text_id)), (True, tuple(said))):
        constraint = OnlyTheseInTurn(said, None if ignore_eos else tokenizer.end_of_text_id)
        handle = engine.submit(PROMPT, SamplingParams(max_tokens=20, ignore_eos=ignore_eos), constraint=constraint)
        completion = handle.result(WAIT_SECONDS)
        assert (completion.ids, completion.finish_reason, completion.text) == (ends, "stop", "The fox")
        assert constraint.seen == said


@pytest.mark.promise("engine", "an answer that takes too long ends with what it has, and its memory is free")
def test_an_answer_ends_in_time(engine: Engine) -> None:
    handle = engine.submit(PROMPT, greedy(150, ignore_eos=True), timeout_seconds=0.05)
    completion = handle.result(WAIT_SECONDS)
    assert completion.finish_reason in ("timeout", "length")
    overdue = engine.submit(PROMPT, greedy(150, ignore_eos=True), timeout_seconds=0).result(WAIT_SECONDS)
    assert (overdue.finish_reason, overdue.ids, overdue.error) == ("timeout", (), None)
    assert engine.stats().blocks_used == 0


@pytest.mark.promise("engine", "a step that lacks memory is tried again at half the size, once, and the log says so")
def test_a_lack_of_memory_halves_the_steps_once(
    engine_with: MakeEngine, decoder: Decoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_with(max_running=4, max_step_tokens=64)
    run, most = engine._runner.run, 32

    def run_in_little_memory(plan: Any) -> Any:
        if sum(chunk.end - chunk.start for chunk in plan) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 bytes")
        return run(plan)

    monkeypatch.setattr(engine._runner, "run", run_in_little_memory)
    prompt = PROMPT * 15
    assert engine.generate([prompt], greedy(ignore_eos=True))[0].ids == plain_greedy(decoder, prompt, 12)
    assert engine._scheduler.max_step_tokens == 32
    assert "at most 32 tokens" in caplog.text
    most = 16
    with pytest.raises(CaslonError, match="allocate"):
        engine.generate([prompt[1:]], greedy())
    assert engine._scheduler.max_step_tokens == 32


def test_a_busy_engine_says_what_it_does(caplog: pytest.LogCaptureFixture) -> None:
    scheduler = Scheduler(BlockPool(8, 8), max_running=2, max_step_tokens=16)
    scheduler.add(Sequence((1,) * 20, SamplingParams(), frozenset(), 0))
    scheduler.plan()
    activity = Activity()
    with caplog.at_level("INFO", logger="caslon.engine"):
        activity.note({}, scheduler, 100.0)
        activity.note({"computed_prompt_tokens": 10, "chosen_tokens": 3}, scheduler, 105.0)
        assert not caplog.messages
        counts = {"computed_prompt_tokens": 500, "chosen_tokens": 25, "prompt_tokens": 500, "cached_tokens": 100}
        activity.note(counts, scheduler, 110.0)
    assert caplog.messages == [
        "Avg prompt throughput: 50.0 tokens/s, Avg generation throughput: 2.5 tokens/s, Running: 1 reqs, "
        "Waiting: 0 reqs, GPU KV cache usage: 25.0%, Prefix cache hit rate: 20.0%"
    ]


def _markers(engine: Engine, tokenizer: Tokenizer, requests: int) -> None:
    """Send requests that each have to say their own marker, and read each answer."""
    base = range(20, tokenizer.vocab_size)

    def marker(number: int) -> list[int]:
        return [base[number % 300], base[number // 300 % 300], base[number // 90_000 % 300]]

    for start in range(0, requests, 250):
        handles = [
            engine.submit(
                [40, 50, number % 300],
                SamplingParams(max_tokens=8, ignore_eos=True, seed=number),
                constraint=OnlyTheseInTurn(marker(number), None),
            )
            for number in range(start, min(start + 250, requests))
        ]
        for number, handle in enumerate(handles, start):
            completion = handle.result(WAIT_SECONDS)
            assert completion.ids == tuple(marker(number))
            assert completion.text == tokenizer.decode(completion.ids, skip_special_tokens=True)
    assert engine.stats().finished == {"stop": requests}
    assert engine.stats().blocks_used == 0


@pytest.mark.promise("engine", "of many requests at once none is lost and none gets another one's answer")
def test_every_request_gets_its_own_answer(engine_with: MakeEngine, tokenizer: Tokenizer, decoder: Decoder) -> None:
    _markers(engine_with(kv_memory_gib=gib_for(decoder, 160)), tokenizer, 400)


@pytest.mark.slow
def test_ten_thousand_requests_and_no_growing_memory(engine_with: MakeEngine, tokenizer: Tokenizer) -> None:
    psutil = pytest.importorskip("psutil")
    process = psutil.Process()
    engine = engine_with()
    _markers(engine, tokenizer, 1_000)
    before = process.memory_info().rss
    other = engine_with()
    _markers(other, tokenizer, 9_000)
    assert process.memory_info().rss <= 1.02 * before
