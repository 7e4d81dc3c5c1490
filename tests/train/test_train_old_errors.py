"""Errors that published training code made, each with a test that fails when it is made again."""

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_run import CPU, PLAN, tiny_decoder, tiny_trainer, train
from torch import nn

from caslon.errors import StorageError, UserError
from caslon.ladder.climb import Climbed, conclusions
from caslon.model.attention import causal
from caslon.model.config import DecoderConfig, Family
from caslon.model.decoder import Decoder, RMSNorm, rotation
from caslon.model.folder import ModelFolder
from caslon.model.import_nanogpt import import_checkpoint
from caslon.model.size import checkpoint_bytes, parameter_counts, quantized_bytes
from caslon.model.weights import disk_tensors, load_disk_tensors, read_weights
from caslon.observe.events import EventLog, metric_values, read_events
from caslon.run_list import RunRow
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train import gpus
from caslon.train.batches import Documents, PackedBatches, Row, WindowBatches, rows_to_batch
from caslon.train.checkpoint import Checkpoint, Checkpoints
from caslon.train.objective_kinds import refuse_other_architecture
from caslon.train.objectives import NextToken
from caslon.train.objectives.objective import bits_per_byte
from caslon.train.peak import Peak, memory_gb
from caslon.train.plan import Defaults, make_plan
from caslon.train.precision import Compute, choose_compute
from caslon.train.schedule import Schedule
from caslon.train.settings import DeviceSettings, OptimizationSettings, UpkeepSettings
from caslon.train.speed import Speed
from caslon.train.validation import measures_of, validation_sums

FAMILIES: tuple[Family, ...] = ("gpt2", "llama", "qwen3")
SHORT = replace(PLAN, steps=6, eval_every=2, schedule=Schedule("constant", 0.01, 6))


def small(family: Family = "llama", **changes: object) -> Decoder:
    fields = {"vocab_size": 64, "context": 16, "hidden_size": 32, "num_attention_heads": 4, **changes}
    decoder = Decoder(DecoderConfig.from_depth(2, family=family, **fields))  # type: ignore[arg-type]
    decoder.initialise(1)
    return decoder.eval()


@pytest.mark.promise(
    "pretraining", "old error: attention scores are divided by the root of the head size, never multiplied"
)
def test_attention_scores_are_divided_by_the_root_of_the_head_size() -> None:
    queries, keys, values = torch.randn(3, 1, 2, 6, 16, generator=torch.Generator().manual_seed(1)).unbind()
    ahead = torch.full((6, 6), -math.inf).triu(1)
    scores = queries @ keys.mT
    divided, multiplied = (torch.softmax(scores * scale + ahead, -1) @ values for scale in (16**-0.5, 16**0.5))
    found = causal(0, queries, keys, values)
    assert torch.allclose(found, divided, atol=1e-6)
    assert not torch.allclose(found, multiplied, atol=0.1)


@pytest.mark.promise("pretraining", "old error: a branch is added to the stream itself, not to its normalised copy")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_branch_is_added_to_the_stream_itself(family: Family) -> None:
    decoder = small(family)
    layer = decoder.model.layers[0]
    for projection in (layer.self_attn.o_proj, layer.mlp.down_proj):
        for parameter in projection.parameters():
            nn.init.zeros_(parameter)
    stream = 5 * torch.randn(1, 4, 32) + 3
    turn = rotation(torch.arange(4)[None], 8, 10_000.0, torch.float32) if family != "gpt2" else None
    after, _ = layer(stream, turn, causal, 0)
    assert torch.equal(after, stream)


@pytest.mark.promise(
    "pretraining", "old error: heads share the width, and a norm has one scale per channel, no square matrix"
)
@pytest.mark.parametrize("family", FAMILIES)
def test_heads_share_the_width_and_norms_are_vectors(family: Family) -> None:
    decoder = small(family)
    for layer in decoder.model.layers:
        assert layer.self_attn.q_proj.weight.shape == (32, 32)  # four heads of 8, not four of 32
        assert layer.self_attn.head_dim == 8
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            assert all(parameter.shape == (32,) for parameter in norm.parameters())
    assert [parameter.shape for parameter in RMSNorm(32, 1e-5).parameters()] == [(32,)]


@pytest.mark.promise("pretraining", "old error: dropout is off in evaluation, and on again in training after it")
def test_dropout_is_off_in_evaluation(tokens_folder: Path, tmp_path: Path) -> None:
    decoder = tiny_decoder(Tokenizer.load(tokens_folder), dropout=0.5)
    trainer = tiny_trainer(tmp_path, tokens_folder, EventLog(None), decoder=decoder)
    decoder.train()
    found = [validation_sums(decoder, NextToken(), trainer.extras.validation, CPU, rows=4)["nats"] for _ in range(2)]
    assert torch.equal(*found)
    assert decoder.training
    batch = trainer.extras.validation[0]
    assert not torch.equal(*(NextToken().loss(decoder, batch).sum.detach() for _ in range(2)))


@pytest.mark.promise(
    "pretraining", "old error: the first rotary pair turns by one radian a position, the i-th by base^(-2i/d)"
)
def test_rotary_exponents_begin_at_zero() -> None:
    cos, sin = rotation(torch.tensor([[1]]), 8, 10_000.0, torch.float64)
    angles = torch.atan2(sin, cos).flatten().tolist()
    assert angles == pytest.approx([10_000 ** (-2 * pair / 8) for pair in range(4)], rel=1e-6)


@pytest.mark.promise("pretraining", "old error: loading gives the model with its weights, not a report of keys")
def test_loading_gives_a_model_with_the_weights(tokens_folder: Path, tmp_path: Path) -> None:
    outcome = train(tmp_path, tokens_folder, plan=SHORT)
    loaded = ModelFolder.open(outcome.best).load()
    assert isinstance(loaded, Decoder)
    fresh = tiny_decoder(Tokenizer.load(tokens_folder))
    ids = torch.tensor([[1, 40, 41]])
    assert not torch.equal(loaded.logits(loaded(ids)), fresh.eval().logits(fresh(ids)))
    tensors = disk_tensors(loaded)
    del tensors[next(iter(tensors))]
    with pytest.raises(UserError, match="1 missing"):
        load_disk_tensors(fresh, tensors)


@pytest.mark.promise(
    "pretraining", "old error: a checkpoint holds shape, random states, place in the data and the recipe"
)
def test_a_checkpoint_is_complete(tokens_folder: Path, tmp_path: Path) -> None:
    recipe = {"steps": 6}
    folder = tiny_trainer(tmp_path, tokens_folder, EventLog(None), plan=SHORT, recipe=recipe).run().best
    checkpoint = next(item for item in tiny_checkpoints(tmp_path) if item.path == folder)
    assert {"config.json", "tokenizer.json", "model.safetensors", "optim.safetensors"} <= {
        p.name for p in folder.iterdir()
    }
    state = checkpoint.state()
    assert state["recipe"] == recipe
    assert {"epoch", "row", "shuffle_seed"} <= set(state["cursor"])
    names = set(checkpoint.tensors())
    assert any("torch" in name for name in names)
    assert any("numpy" in name for name in names)
    assert any("python" in name for name in names)


def tiny_checkpoints(folder: Path) -> list[Checkpoint]:
    return Checkpoints(folder / "checkpoints", 9, lambda _: None).all()


@pytest.mark.promise(
    "pretraining", "old error: a run whose checkpoints cannot be read stops, and never begins at zero again"
)
def test_damaged_checkpoints_stop_a_resumed_run(tokens_folder: Path, tmp_path: Path) -> None:
    train(tmp_path, tokens_folder, plan=SHORT)
    for checkpoint in tiny_checkpoints(tmp_path):
        (checkpoint.path / "optim.safetensors").write_bytes(b"damaged")
    logged = len(list(read_events(tmp_path / "events.jsonl")))
    with pytest.raises(StorageError, match="no checkpoint of this run is intact"):
        train(tmp_path, tokens_folder, plan=SHORT)
    after = list(read_events(tmp_path / "events.jsonl"))[logged:]
    assert not [record for record in after if record["kind"] == "metrics"]


@pytest.mark.promise("pretraining", "old error: pruning never deletes the best checkpoint, however old")
def test_pruning_spares_the_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 1, lambda _: None)
    for step in range(1, 9):
        state = {"step": step, "tokens": step, "regular": True}
        checkpoints.save(step, lambda path, _: None, {"a": torch.ones(1)}, state, best=step == 2)
    best = checkpoints.best()
    assert best is not None
    assert [item.step for item in checkpoints.all()] == [2, 8]
    assert best.step == 2
    assert best.problem() is None


@pytest.mark.promise(
    "pretraining", "old error: the compile prefix is taken off the keys that have it, and nothing off the others"
)
def test_only_keys_with_the_prefix_lose_it(tmp_path: Path) -> None:
    source = small("gpt2", tie_word_embeddings=True)
    turned = ("c_attn.weight", "attn.c_proj.weight", "c_fc.weight", "mlp.c_proj.weight")
    state = {
        name: tensor.t().contiguous() if name.endswith(turned) else tensor
        for name, tensor in disk_tensors(source).items()
    }
    prefixed = {name: ("_orig_mod." + name if number % 2 else name) for number, name in enumerate(state)}
    arguments = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 16, "vocab_size": 64, "activation": "gelu_new"}
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": {prefixed[name]: tensor for name, tensor in state.items()}, "model_args": arguments}, path)
    config = import_checkpoint(path, tmp_path / "model")
    imported = Decoder(config)
    load_disk_tensors(imported, read_weights(tmp_path / "model"))
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.allclose(imported.eval().logits(imported(ids)), source.logits(source(ids)), atol=1e-5)


@pytest.mark.promise(
    "pretraining", "old error: pretraining rows hold no padding, but the last of an epoch, and one stretch of text"
)
@pytest.mark.parametrize("kind", [PackedBatches, WindowBatches])
def test_rows_hold_text_only(kind: type[PackedBatches] | type[WindowBatches]) -> None:
    ids = np.arange(1, 402, dtype=np.uint16)
    ids[-1] = 0
    rows = kind(Documents(ids, np.array([0, 401]), end_id=0), context=16, seed=3)
    stream = [0, *ids.tolist()]
    whole = " " + " ".join(map(str, stream)) + " "
    for number in range(rows.rows_per_epoch):
        batch = rows.batch(number, 1)
        if kind is WindowBatches or number < rows.rows_per_epoch - 1:
            assert bool(batch.scored.all())
            row = [*batch.ids[0].tolist(), int(batch.targets[0, -1])]
            assert f" {' '.join(map(str, row))} " in whole
            assert torch.equal(batch.ids[0, 1:], batch.targets[0, :-1])


@pytest.mark.promise("pretraining", "old error: warm-up comes from the settings, not from a constant in the code")
@pytest.mark.parametrize("warmup", [0, 3, 17])
def test_warmup_comes_from_the_settings(warmup: int) -> None:
    defaults = Defaults(16, 4, 1e-3, lambda _: 50, "", "", 0.5)
    given = OptimizationSettings(steps=50, warmup_steps=warmup, learning_rate=1e-3)
    plan, _ = make_plan(given, UpkeepSettings(), defaults, seed=1)
    rates = [plan.schedule.rate(step) for step in range(50)]
    assert rates.index(max(rates)) == warmup
    assert rates[:warmup] == pytest.approx([1e-3 * (step + 1) / (warmup + 1) for step in range(warmup)])


@pytest.mark.promise("pretraining", "old error: fp16 training scales its loss, so that small gradients are not lost")
def test_fp16_scales_the_loss(tokens_folder: Path, tmp_path: Path) -> None:
    scaled = tiny_trainer(tmp_path, tokens_folder, EventLog(None), compute=Compute(torch.device("cpu"), "fp16", "test"))
    plain = tiny_trainer(tmp_path, tokens_folder, EventLog(None))
    assert plain.loss_scale is None
    assert scaled.loss_scale is not None
    gradient = torch.tensor(1e-8)
    assert gradient.half() == 0
    assert (gradient * scaled.loss_scale.value).half() > 0


@pytest.mark.promise(
    "pretraining", "old error: models with different tokenizers are compared in bits per byte, not in perplexity"
)
def test_bits_per_byte_do_not_depend_on_the_tokenizer() -> None:
    text_bytes = 1_000
    by_bytes, by_pairs = (text_bytes // size * math.log(256**size) for size in (1, 2))
    assert math.exp(by_bytes / text_bytes) != pytest.approx(math.exp(by_pairs / (text_bytes // 2)))
    assert bits_per_byte(by_bytes, text_bytes) == pytest.approx(8.0)
    assert bits_per_byte(by_pairs, text_bytes) == pytest.approx(8.0)
    compared = RunRow.__dataclass_fields__
    assert "val_bpb" in compared
    assert not any("ppl" in name or "perplexity" in name for name in compared)


@pytest.mark.promise("pretraining", "old error: a share of the peak names its peak, and without one there is no share")
def test_mfu_names_its_peak() -> None:
    peak = Peak(989e12, "H200", "bf16", "data sheet")
    told, silent = (Speed(1_000, 10**9, known, torch.device("cpu")) for known in (peak, None))
    for speed in (told, silent):
        speed.note(0.5, 0.0)
    assert "mfu 0.2% of 989 TFLOP/s (H200 bf16)" in told.describe(10)
    assert "mfu" not in silent.describe(10)
    assert told.peak_share == pytest.approx(2_000 * 10**9 / 989e12)


@pytest.mark.promise("pretraining", "old error: time spent in evaluation counts for no step's speed")
def test_evaluation_is_not_part_of_a_step(tokens_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, late = time.perf_counter, [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + late[0])

    def take_an_hour(_decoder: Decoder, _step: int) -> dict[str, float]:
        late[0] += 3600
        return {}

    log = tmp_path / "events.jsonl"
    with EventLog(log) as events:
        tiny_trainer(tmp_path, tokens_folder, events, plan=replace(SHORT, log_every=1), measure=take_an_hour).run()
    steps = metric_values(log, "timing")["train/dt_ms"]
    assert late[0] >= 3 * 3600
    assert len(steps) == 6
    assert max(milliseconds for _, milliseconds in steps) < 3600e3


@pytest.mark.promise(
    "pretraining", "old error: a checkpoint's size counts the optimiser's state, not the weights alone"
)
def test_checkpoint_sizes_count_the_optimiser(tokens_folder: Path, tmp_path: Path) -> None:
    slm = DecoderConfig.preset("slm")
    assert checkpoint_bytes(slm) / 1e6 == pytest.approx(434, abs=1)
    assert checkpoint_bytes(slm, optimizer="adamw") / 1e9 == pytest.approx(1.30, abs=0.005)
    trainer = tiny_trainer(tmp_path, tokens_folder, EventLog(None), plan=replace(SHORT, optimizer="adamw"))
    folder = trainer.run().best
    tensors = sum((folder / name).stat().st_size for name in ("model.safetensors", "optim.safetensors"))
    foretold = checkpoint_bytes(trainer.decoder.config, optimizer="adamw")
    assert foretold <= tensors < foretold + 40_000  # names of tensors and random states


@pytest.mark.promise(
    "pretraining", "old error: the larger of two models is called better only where its validation is better"
)
def test_a_larger_model_with_worse_validation_is_not_better() -> None:
    def reached(rung: str, parameters: int, bits: float) -> Climbed:
        return Climbed(rung, 128, "", "", parameters, "parameters", 1.0, 1.0, bits, "")

    gram = Climbed("witten-bell-5", 4, "", "", 100, "counts", 1.0, 1.0, 2.4076, "")
    told = conclusions([gram, reached("gpt2", 334_080_000, 2.71), reached("llama", 836_736, 2.2)])
    assert "gpt2 (2.7100) does not beat" in told[0]
    assert "llama (2.2000) beats" in told[1]


@pytest.mark.promise("pretraining", "old error: masked tokens are never the objective of a causal model")
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_tokens_on_a_causal_model_are_refused(family: Family) -> None:
    with pytest.raises(UserError, match="is a decoder") as caught:
        refuse_other_architecture("mlm", family, "decoder")
    assert "use 'lm'" in str(caught.value)
    refuse_other_architecture("lm", family, "decoder")


@pytest.mark.promise(
    "pretraining", "old error: a quantised size counts every tensor of the file, not what `parameters()` still lists"
)
def test_quantised_sizes_count_what_is_written(tmp_path: Path) -> None:
    config = DecoderConfig.from_depth(2, family="llama", vocab_size=2_000, context=64, hidden_size=128)
    decoder = Decoder(config)
    decoder.initialise(1)
    matrices = {name for name, value in disk_tensors(decoder).items() if value.dim() == 2 and "embed" not in name}
    written = {
        name: torch.zeros(value.numel() // 2, dtype=torch.uint8) if name in matrices else value.bfloat16()
        for name, value in disk_tensors(decoder).items()
    }
    save_file(written, tmp_path / "model.safetensors")
    foretold = quantized_bytes(config, weight_bits=4)
    header = 200 * len(written)
    assert foretold <= (tmp_path / "model.safetensors").stat().st_size < foretold + header
    still_listed = 2 * (parameter_counts(config).trained - parameter_counts(config).matrices)
    assert foretold > still_listed + 100_000


@pytest.mark.promise(
    "pretraining", "old error: losses are summed over targets and divided once, no mean of unequal batches"
)
def test_unequal_batches_are_summed_before_they_are_divided() -> None:
    decoder = small()
    long, short = (np.arange(1, length + 1) for length in (17, 4))
    batches = [rows_to_batch([Row(row, (0,))], 16, 0, False) for row in (long, short)]
    sums = validation_sums(decoder, NextToken(), batches, CPU, rows=1)
    parts = [NextToken().loss(decoder, batch) for batch in batches]
    assert [part.count for part in parts] == [16, 3]
    means = [float(part.sum.detach()) / part.count for part in parts]
    loss = measures_of(NextToken(), sums, "val")["eval/val_loss"]
    assert loss == pytest.approx((16 * means[0] + 3 * means[1]) / 19, rel=1e-6)
    assert abs(loss - sum(means) / 2) > 1e-4


@pytest.mark.promise("pretraining", "old error: asking for GPUs is harmless on a machine without any")
def test_a_machine_without_a_gpu_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object) -> None:
        raise AssertionError("there is no GPU to ask")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("mem_get_info", "get_device_name", "get_device_capability", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, fails)
    assert gpus.visible_gpus() == []
    compute = choose_compute(DeviceSettings(precision="fp32", threads=1))
    assert compute.device.type == "cpu"
    assert "CPU" in compute.describe()
    assert memory_gb(compute.device) > 0
