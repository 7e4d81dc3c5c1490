"""`[pretrain]`: trains a model from nothing on the token files of the tokenizer stage, for the objective its family needs.

One dial, `depth`, sets the shape; batch, learning rate and number of tokens follow from the shape. Each derived value may be set
by hand, and `caslon plan` says of each where it came from.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from caslon import settings
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.encoder_config import ENCODER_FAMILIES, EncoderConfig, EncoderDecoderConfig
from caslon.model.size import flop_per_token
from caslon.stages.costs import advice_rows, cost_rows, forecast_on, tell
from caslon.stages.shape import (
    AnyConfig,
    ShapeSettings,
    architecture_of,
    counts_of,
    encoder_rows,
    model_config,
    shape_rows,
    shape_warnings,
)
from caslon.stages.stage import THIS, PlanContext, PlanRow, StageContext
from caslon.tokenizer.encode import TokenSplit
from caslon.tokenizer.settings import TokenizerSettings
from caslon.tokenizer.token_files import META_FILE
from caslon.train.dataset import OWN, TOKENS_FOLDER, Packing, mixture_folder, open_data
from caslon.train.forecast import Forecast
from caslon.train.objective_kinds import Material, objective_kind, objective_options, refuse_other_architecture
from caslon.train.plan import TOKENS_PER_PARAMETER, Defaults, Origins, TrainPlan, make_plan
from caslon.train.settings import DeviceSettings, OptimizationSettings, ProcessesSettings, UpkeepSettings

if TYPE_CHECKING:
    from caslon.model.decoder import Decoder
    from caslon.model.transformers_model import TransformersModel
    from caslon.tokenizer.tokenizer import Tokenizer
    from caslon.train.distributed import Processes
    from caslon.train.extras import Outcome, Sampler

VERSION = 2
READS: Sequence[str] = ("tokens",)
WRITES: str | None = "model"
SEVERAL_PROCESSES = True

SAMPLE_TEMPERATURE = 0.8
SAMPLE_CACHE_GIB = 0.05
SMALLEST_BATCH_TOKENS = 2048


class Settings(ShapeSettings, OptimizationSettings, UpkeepSettings, DeviceSettings, ProcessesSettings):
    """The shape of the model, how it is trained, and what happens beside that."""

    objective: str = Field("lm", description="what is learnt: lm, mlm (for bert) or seq2seq (for t5)")
    objective_options: dict[str, Any] = Field({}, description="the objective's own keys")
    loss_chunk: int | None = Field(
        None, ge=1, description="tokens whose logits are in memory at once; what suits the device by default"
    )
    z_loss: float = Field(0.0, ge=0, description="weight of the squared logarithm of the softmax's denominator")
    packing: Packing = Field("packed", description="all text once an epoch, or random windows")
    mixture: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description='weights by data set: "tokens" for the recipe\'s own, or the folder of another tokenizer stage'
    )
    doc_mask: bool = Field(True, description="whether attention stops at the borders of documents")
    tokens_per_parameter: float = Field(TOKENS_PER_PARAMETER, gt=0, description="sets `steps` when that is left out")

    def conflicts(self) -> Iterator[settings.Conflict]:
        """Yield where objective, family and their keys do not go together."""
        yield from super().conflicts()
        try:
            refuse_other_architecture(self.objective, self.family, architecture_of(self.family))
        except UserError as error:
            yield settings.Conflict("objective", error.what, error.fix or "")
            return
        try:
            self.options()
        except UserError as error:
            yield settings.Conflict("objective_options", error.what)
        if objective_kind(self.objective).learns_from != "text":
            yield settings.Conflict(
                "objective", f"objective '{self.objective}' learns from conversations", "use [finetune]"
            )
        if not self.masks_documents and self.doc_mask and "doc_mask" in self.model_fields_set:
            yield settings.Conflict("doc_mask", f"family '{self.family}' has no document masks", "leave doc_mask out")
        if self.parallel == "fsdp" and self.family in ENCODER_FAMILIES:
            yield settings.Conflict("parallel", f"fsdp divides decoders, not '{self.family}'", "use parallel = 'ddp'")

    def options(self) -> settings.Settings:
        """Return the objective's options, checked."""
        return objective_options(self.objective, self.objective_options)

    @property
    def masks_documents(self) -> bool:
        """Whether attention stops at the borders of documents."""
        return self.doc_mask and architecture_of(self.family) != "encoder-decoder"


def sources(settings: Settings, base: Path) -> list[Path]:
    """Return every outside file the stage reads: what says all about the token files that are mixed in."""
    return [mixture_folder(name, base) / META_FILE for name in settings.mixture if name != OWN]


def plan(context: PlanContext) -> list[PlanRow]:
    """Return what will be trained and what it costs; needs the tokenizer's table, better its finished folder."""
    chosen: Settings = context.settings
    split = _split_if_there(context, "train")
    vocab_size = split.vocab_size if split else _planned_vocab_size(context)
    what, origins = train_plan(chosen, vocab_size, context.seed)
    config = _config(chosen, vocab_size, what.context)
    if not isinstance(config, DecoderConfig):
        return _encoder_plan(chosen, config, what, origins, split)
    forecast = forecast_on(
        context.device,
        context.price_per_hour,
        chosen,
        config,
        what,
        document_masking=chosen.doc_mask,
        data_tokens=len(split.ids) if split else None,
        may_measure=context.may_measure,
    )
    rows = [
        *shape_rows(chosen, config),
        *_training_rows(what, origins),
        PlanRow("tokens per parameter", round(forecast.tokens_per_parameter, 2), "", "computed"),
    ]
    if forecast.epochs is not None:
        rows.append(PlanRow("epochs", round(forecast.epochs, 2), "", "computed"))
    rows += cost_rows(config, what, forecast)
    return [*rows, *advice_rows(forecast)]


def _encoder_plan(
    chosen: Settings,
    config: EncoderConfig | EncoderDecoderConfig,
    what: TrainPlan,
    origins: Origins,
    split: TokenSplit | None,
) -> list[PlanRow]:
    """Return the rows of a family whose memory and time nobody foretells."""
    tokens = what.steps * what.tokens_per_step
    rows = [
        PlanRow("objective", chosen.objective, "", "setting"),
        *encoder_rows(chosen, config),
        *_training_rows(what, origins),
        PlanRow("tokens per parameter", round(tokens / config.counts().trained, 2), "", "computed"),
        PlanRow("training", config.flop_per_token(what.context) * tokens, "FLOP", "computed"),
    ]
    return [*rows, PlanRow("epochs", round(tokens / len(split.ids), 2), "", "computed")] if split else rows


def run(context: StageContext) -> dict[str, Any]:
    """Train to the last step, going on from where an earlier call was stopped; the best model is left in `model/`."""
    from caslon.train.distributed import ALONE

    chosen: Settings = context.settings
    with (context.processes or ALONE).collectives(
        context.name,
        parallel=chosen.parallel,
        cpu_offload=chosen.cpu_offload,
        timeout_seconds=chosen.collective_timeout_seconds,
    ) as processes:
        return _trained(context, processes)


def _trained(context: StageContext, processes: "Processes") -> dict[str, Any]:
    from caslon.model.decoder import Decoder
    from caslon.tokenizer.tokenizer import Tokenizer
    from caslon.train.distributed import idle_gpus_note
    from caslon.train.expert_map import expert_map
    from caslon.train.extras import LESS_MEMORY, Extras
    from caslon.train.memory import memory_advice
    from caslon.train.objectives import CollatedBatches
    from caslon.train.peak import peak_of
    from caslon.train.precision import choose_compute
    from caslon.train.session import rewind_command, train_in_folder
    from caslon.train.validation import fixed_batches

    threads = processes.threads(context.settings.threads)
    chosen: Settings = context.settings.model_copy(update={"threads": threads})
    source = context.inputs["tokens"].path
    tokenizer = Tokenizer.load(source)
    data = open_data(source / TOKENS_FOLDER, chosen.mixture, context.base, tokenizer)
    what, _ = train_plan(chosen, tokenizer.vocab_size, context.seed)
    compute = choose_compute(chosen, rank=processes.local_rank)
    context.events.note(compute.describe())
    if note := idle_gpus_note(processes, compute, chosen.max_gpus):
        context.events.note(note)
    config = _config(chosen, tokenizer.vocab_size, what.context)
    sample = None
    if isinstance(config, DecoderConfig):
        if processes.is_first:
            tell(context.events, _forecast(chosen, config, what, data.tokens))
        for warning in shape_warnings(config):
            context.events.warn(warning)
        sample = continuations(
            tokenizer, chosen.sample_prompts, chosen.sample_tokens, context=what.context, seed=context.seed
        )
    else:
        compute = replace(compute, compilation="off")  # of decoders only
    if processes.world > 1:
        context.events.note(f"{processes.world} processes share each step ({chosen.parallel}); a forecast is for one")
    objective = objective_kind(chosen.objective).make(
        chosen.options(),
        Material(tokenizer, what.context, what.seed, compute.device, chosen.loss_chunk, chosen.z_loss),
    )
    rows = data.rows("train", chosen.packing, what.context, what.seed, doc_mask=chosen.masks_documents)
    held_out = data.rows("validation", chosen.packing, what.context, what.seed, doc_mask=chosen.masks_documents)
    model = processes.build(lambda: built(config, context.seed), config)
    outcome = train_in_folder(
        context.folder,
        what,
        model,
        tokenizer,
        objective,
        CollatedBatches(rows, objective),
        compute=compute,
        events=context.events,
        extras=Extras(
            validation=fixed_batches(CollatedBatches(held_out, objective), what.batch, what.eval_batches),
            training=fixed_batches(CollatedBatches(rows, objective), what.batch, what.eval_batches),
            sample=sample,
            measure=lambda _, step: {
                f"data/share/{name}": share for name, share in data.shares(step * what.batch, rows).items()
            },
            lineage={
                "tokens": context.inputs["tokens"].digest,
                "config": config.to_json(),
                "options": chosen.options().model_dump(),
            },
            flops_per_token=_flop_per_token(config, what.context),
            peak=peak_of(compute) if processes.is_first else None,
            chance_loss=math.log(config.vocab_size),
            recipe=context.settings.output_settings(),
            memory_advice=memory_advice(config, what.context, what.optimizer)
            if isinstance(config, DecoderConfig)
            else LESS_MEMORY,
            rewind_command=rewind_command(context.folder.parent),
            allow_change=context.allow_change,
        ),
        sidecar={"data": data.dataset_id, "tokens": context.inputs["tokens"].digest, "parent": None},
        processes=processes,
    )
    if isinstance(model, Decoder) and model.config.has_experts:
        text = held_out.batch(0, 1).ids[0].tolist()
        context.events.emit(expert_map(model, tokenizer, text, outcome.step))
    shares = data.shares(outcome.step * what.batch, rows)
    if shares:
        context.events.note("rows by data set: " + ", ".join(f"{name} {share:.2%}" for name, share in shares.items()))
    return _totals(config, outcome, data.tokens) | ({"data_shares": shares} if shares else {})


def built(config: AnyConfig, seed: int) -> "Decoder | TransformersModel":
    """Return an untrained model of a shape, its weights from the seed alone."""
    from caslon.model.decoder import Decoder
    from caslon.model.encoder import Encoder
    from caslon.model.encoder_decoder import EncoderDecoder

    model: Decoder | TransformersModel
    if isinstance(config, DecoderConfig):
        model = Decoder(config)
    else:
        model = Encoder(config) if isinstance(config, EncoderConfig) else EncoderDecoder(config)
    model.initialise(seed)
    return model


def _flop_per_token(config: AnyConfig, context: int) -> int:
    return flop_per_token(config, context) if isinstance(config, DecoderConfig) else config.flop_per_token(context)


def _forecast(chosen: Settings, config: DecoderConfig, what: TrainPlan, tokens: int) -> Forecast:
    return forecast_on(THIS, None, chosen, config, what, document_masking=chosen.doc_mask, data_tokens=tokens)


def train_plan(chosen: Settings, vocab_size: int, seed: int) -> tuple[TrainPlan, Origins]:
    """Return the training plan of a table, and where its values came from."""
    return make_plan(chosen, chosen, defaults_for(chosen, vocab_size), seed=seed)


def _config(chosen: Settings, vocab_size: int, context: int) -> AnyConfig:
    """Return the model's shape, with the heads its objective needs."""
    next_sentence = bool(getattr(chosen.options(), "next_sentence", False))
    return model_config(chosen, vocab_size, context, next_sentence=next_sentence)


def defaults_for(chosen: Settings, vocab_size: int) -> Defaults:
    """Return what the dial derives: context, batch, rate and tokens from the shape."""
    context = chosen.context or (256 if chosen.depth < 8 else 512 if chosen.depth < 16 else 1024)
    config = model_config(chosen, vocab_size, context)
    counts = counts_of(config)
    trained = counts.active - counts.positions - (counts.embedding if counts.head else 0)
    tokens = chosen.tokens_per_parameter * trained
    # The batch that still pays grows about as the square root of the tokens seen (arXiv:2505.13738).
    batch_tokens = SMALLEST_BATCH_TOKENS * 2 ** max(0, round(math.log2(trained / 4e6) / 2))
    peak = (6e-3 if chosen.optimizer == "muon" else 3e-3) * math.sqrt(256 / max(256, config.hidden_size))
    return Defaults(
        context=context,
        batch=max(1, batch_tokens // context),
        learning_rate=float(f"{peak:.3g}"),
        steps=lambda tokens_per_step: max(1, round(tokens / tokens_per_step)),
        steps_why=f"{chosen.tokens_per_parameter:g} tokens for each of {trained:,} parameters",
        why="derived from depth",
        warmup_share=0.05,
    )


def continuations(
    tokenizer: "Tokenizer", prompts: Sequence[str], tokens: int, *, context: int, seed: int
) -> "Sampler | None":
    """Return a sampler that lets the model go on from each prompt, with a fixed seed; `UserError` where one does not fit."""
    if not tokens or not prompts:
        return None
    longest = max(len(tokenizer.encode(prompt)) for prompt in prompts)
    if longest + tokens > context:
        raise UserError(
            f"a sample prompt of {longest} tokens and sample_tokens = {tokens} make more than the context of {context}",
            fix=f"set pretrain.sample_tokens to {max(context - longest, 0)} or less, or shorten the prompt",
        )
    from caslon.engine.engine import Engine
    from caslon.engine.request import SamplingParams
    from caslon.engine.settings import EngineSettings

    params = SamplingParams(max_tokens=tokens, temperature=SAMPLE_TEMPERATURE, seed=seed)

    def sample(decoder: "Decoder", step: int) -> list[tuple[str, str]]:
        with Engine(decoder, tokenizer, EngineSettings(kv_memory_gib=SAMPLE_CACHE_GIB)) as engine:
            completions = engine.generate(list(prompts), params)
        return [(prompt, completion.text) for prompt, completion in zip(prompts, completions, strict=True)]

    return sample


def _split_if_there(context: PlanContext, name: str) -> TokenSplit | None:
    if "tokens" not in context.inputs:
        return None
    return TokenSplit.open(context.inputs["tokens"].path / TOKENS_FOLDER, name)


def _planned_vocab_size(context: PlanContext) -> int:
    """Return the vocabulary size the recipe's tokenizer table asks for."""
    table = context.recipe_settings.get("tokenizer")
    if not isinstance(table, TokenizerSettings):
        raise UserError("the recipe has no [tokenizer], so the vocabulary size is not known", fix="add the table")
    return table.planned_vocab_size(context.base)


def _training_rows(what: TrainPlan, origins: Origins) -> list[PlanRow]:
    return [
        PlanRow("context", what.context, "tokens", origins["context"]),
        PlanRow("batch", what.batch, "rows", origins["batch"]),
        PlanRow("micro_batch", what.micro_batch, "rows", origins["micro_batch"]),
        PlanRow("tokens per step", what.tokens_per_step, "tokens", "batch x context"),
        PlanRow("steps", what.steps, "steps", origins["steps"]),
        PlanRow("tokens", what.steps * what.tokens_per_step, "tokens", "steps x tokens per step"),
        PlanRow("optimizer", what.optimizer, "", "setting"),
        PlanRow("learning_rate", what.schedule.peak, "", origins["learning_rate"]),
        PlanRow("table_rate_ratio", what.table_rate_ratio, "", origins["table_rate_ratio"]),
        PlanRow("head_rate_ratio", what.head_rate_ratio, "", origins["head_rate_ratio"]),
        PlanRow("warmup_steps", what.schedule.warmup_steps, "steps", origins["warmup_steps"]),
        PlanRow("eval_every", what.eval_every, "steps", origins["eval_every"]),
        PlanRow("eval_batches", what.eval_batches, "batches", origins["eval_batches"]),
    ]


def _totals(config: AnyConfig, outcome: "Outcome", tokens_in_data: int) -> dict[str, Any]:
    totals = {
        "parameters": counts_of(config).trained,
        "steps": outcome.step,
        "tokens": outcome.tokens,
        "epochs": round(outcome.tokens / tokens_in_data, 4),
        "best_step": outcome.best_step,
        "steps_skipped": outcome.skipped,
    }
    named = {"eval/val_loss": "val_loss", "eval/val_bpb": "val_bpb"}
    return totals | {ours: outcome.metrics[name] for name, ours in named.items() if name in outcome.metrics}
