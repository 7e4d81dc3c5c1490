"""`[finetune.sft]`: teaches a model to take turns, with loss on the assistant's words and the end of its turn only.

Conversations come from the docstrings of the corpus's training documents, or from JSON Lines files. Afterwards the model answers
questions it has not seen; `answers.json` keeps the best and the worst of them beside what the untuned model said.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from caslon.errors import UserError
from caslon.folders import digest_of, write_atomic
from caslon.stages.stage import PlanContext, PlanRow, StageContext
from caslon.train.plan import Defaults, TrainPlan, make_plan
from caslon.train.settings import DeviceSettings, OptimizationSettings, UpkeepSettings

if TYPE_CHECKING:
    from caslon.model.decoder import Decoder
    from caslon.model.folder import ModelFolder
    from caslon.tokenizer.tokenizer import Tokenizer
    from caslon.train.conversations import Encoded, Row
    from caslon.train.extras import Sampler

VERSION = 2
READS: Sequence[str] = ("model", "text")
WRITES: str | None = "model"

MODEL_FOLDER = "model"
ANSWERS_FILE = "answers.json"
LEFT_OUT_FILE = "left_out.json"
SHOWN_ANSWERS = 20
ENGINE_CACHE_GIB = 0.1
RATE_AT_A_BILLION = 2e-5  # the usual rate for full tuning; smaller models take, and need, larger steps
HIGHEST_RATE = 2e-3
LOWEST_RATE = 1e-5


class Settings(OptimizationSettings, UpkeepSettings, DeviceSettings):
    """Where the conversations come from, how long to train, how to measure the answers."""

    conversations: Literal["docstrings"] | tuple[str, ...] = Field(
        "docstrings", description="'docstrings' of the corpus, or a list of JSON Lines files"
    )
    epochs: float = Field(3.0, gt=0, description="sets `steps` when that is left out")
    skip_bad: bool = Field(False, description="leave bad rows out, with a note, instead of stopping")
    optimizer: Literal["adamw", "muon"] = Field("adamw", description="for the small steps of tuning")
    weight_decay: float = Field(0.0, ge=0, le=1, description="none: the model is near where it should be")
    sample_prompts: tuple[str, ...] = Field((), description="questions answered at evaluations; unseen ones by default")
    questions: int = Field(100, ge=1, description="unseen questions answered at the end")
    answer_tokens: int = Field(96, ge=1, description="an answer longer than this has not ended by itself")


@dataclass(frozen=True)
class Answer:
    """An answer to a question that was not trained on. `f1` is the overlap of its words with the expected ones."""

    question: str
    expected: str
    answer: str
    ended: bool
    f1: float
    before: str = ""  # what the untuned model said


def sources(chosen: Settings, base: Path) -> list[Path]:
    """Return the files the stage reads beside its inputs."""
    return [] if chosen.conversations == "docstrings" else [base / name for name in chosen.conversations]


def plan(context: PlanContext) -> list[PlanRow]:
    """Return what will be done, as far as it is known before the conversations are read."""
    chosen: Settings = context.settings
    where = "docstrings" if chosen.conversations == "docstrings" else ", ".join(chosen.conversations)
    steps = chosen.steps if chosen.steps is not None else f"{chosen.epochs:g} epochs"
    return [
        PlanRow("conversations", where, "", "setting"),
        PlanRow(
            "steps", steps, "", "setting" if chosen.steps is not None else "epochs x rows / batch, known when read"
        ),
        PlanRow("optimizer", chosen.optimizer, "", "setting"),
        PlanRow("unseen questions", chosen.questions, "", "setting"),
    ]


def run(context: StageContext) -> dict[str, Any]:
    """Tune the model, measure how it answers and keep twenty answers; the best model is left in `model/`."""
    from caslon.model.folder import ModelFolder
    from caslon.model.size import flop_per_token
    from caslon.train.batches import ConversationBatches
    from caslon.train.extras import Extras
    from caslon.train.memory import memory_advice
    from caslon.train.objectives import NextToken
    from caslon.train.peak import peak_of
    from caslon.train.precision import choose_compute
    from caslon.train.session import rewind_command, train_in_folder
    from caslon.train.validation import fixed_batches

    chosen: Settings = context.settings
    parent = ModelFolder.open(context.inputs["model"].path / MODEL_FOLDER)
    tokenizer = parent.tokenizer()
    length = _context(chosen, parent)
    training, held_out = conversations(context, tokenizer, length)
    compute = choose_compute(chosen)
    context.events.note(compute.describe())
    decoder = parent.load()
    rows, unseen = (
        ConversationBatches(part.conversations, length, tokenizer.pad_id, context.seed) for part in (training, held_out)
    )
    what = tuning_plan(chosen, parent, length, rows.rows_per_epoch, context.seed)
    questions = in_fixed_order(held_out.rows)[: chosen.questions]
    digest = digest_of([[row.record["messages"] for row in part.rows] for part in (training, held_out)])
    outcome = train_in_folder(
        context.folder,
        what,
        decoder,
        tokenizer,
        NextToken(name="sft"),
        rows,
        compute=compute,
        events=context.events,
        extras=Extras(
            validation=fixed_batches(unseen, what.batch, what.eval_batches),
            sample=asker(
                tokenizer, chosen.sample_prompts or [_asked(row) for row in questions[:3]], chosen.sample_tokens
            ),
            lineage={"parent": parent.digest(), "conversations": digest},
            flops_per_token=flop_per_token(decoder.config, length),
            peak=peak_of(compute),
            chance_loss=math.log(decoder.config.vocab_size),
            recipe=chosen.output_settings(),
            memory_advice=memory_advice(decoder.config, length, what.optimizer),
            rewind_command=rewind_command(context.folder.parent),
            allow_change=context.allow_change,
        ),
        sidecar={"parent": parent.digest(), "data": digest},
    )
    tuned = ModelFolder.open(context.folder / MODEL_FOLDER)
    answers = answered(tuned.load(), tokenizer, questions, chosen.answer_tokens)
    places = best_and_worst(answers)
    before = answered(parent.load(), tokenizer, [questions[place] for place in places], chosen.answer_tokens)
    shown = [replace(answers[place], before=old.answer) for place, old in zip(places, before, strict=True)]
    ended = sum(answer.ended for answer in answers)
    totals = {
        "conversations": len(training.rows),
        "conversations_left_out": len(training.too_long),
        "steps": outcome.step,
        "tokens": outcome.tokens,
        "best_step": outcome.best_step,
        "val_loss": outcome.metrics["eval/val_loss"],
        "val_accuracy": outcome.metrics["eval/val_accuracy"],
        "questions": len(answers),
        "answers_ended_by_themselves": ended,
        "answers_ended_share": ended / len(answers),
        "mean_word_f1": sum(answer.f1 for answer in answers) / len(answers),
    }
    write_atomic(context.folder / ANSWERS_FILE, _json({**totals, "answers": [asdict(answer) for answer in shown]}))
    return totals


def conversations(context: StageContext, tokenizer: "Tokenizer", length: int) -> tuple["Encoded", "Encoded"]:
    """Return the training and the validation conversations; say which were left out."""
    from caslon.train.conversations import encode_rows, listed

    training, held_out = (encode_rows(part, tokenizer, length) for part in _rows(context))
    for name, part in (("training", training), ("validation", held_out)):
        if not part.rows:
            raise UserError(f"there is no {name} conversation", fix="give more conversations or documents")
    left_out = [{"place": place, "tokens": tokens} for part in (training, held_out) for place, tokens in part.too_long]
    if left_out:
        write_atomic(context.folder / LEFT_OUT_FILE, _json({"longer than the context": left_out}))
        lines = [f"{entry['place']}: {entry['tokens']} tokens" for entry in left_out]
        context.events.warn(
            f"{len(lines)} conversations are longer than {length} tokens and left out:\n  {listed(lines)}"
        )
    context.events.note(f"{len(training.rows):,} conversations to learn from, {len(held_out.rows):,} held out")
    return training, held_out


def _rows(context: StageContext) -> tuple[Sequence["Row"], Sequence["Row"]]:
    from caslon.corpus import conversations as docstrings
    from caslon.train.conversations import Row, listed, read_rows, split_rows

    chosen: Settings = context.settings
    if chosen.conversations == "docstrings":
        corpus = context.inputs["text"].path
        training, held_out = (
            [Row(str(record["source"]), record) for record in docstrings.conversations(corpus, split)]
            for split in ("train", "validation")
        )
        asked = {_asked(row) for row in training}
        return training, [row for row in held_out if _asked(row) not in asked]
    rows, problems = read_rows(sources(chosen, context.base), skip_bad=chosen.skip_bad)
    if problems:
        context.events.warn(f"{len(problems)} bad rows left out:\n  {listed(problems)}")
    return split_rows(rows)


def tuning_plan(chosen: Settings, parent: "ModelFolder", context: int, rows_per_epoch: int, seed: int) -> TrainPlan:
    """Return the plan: some epochs at a rate that fits the size of the model."""
    from caslon.model.size import parameter_counts

    size = parameter_counts(parent.config).trained
    rate = min(HIGHEST_RATE, max(LOWEST_RATE, RATE_AT_A_BILLION * math.sqrt(1e9 / size)))
    defaults = Defaults(
        context=context,
        batch=min(8, rows_per_epoch),
        learning_rate=float(f"{rate:.3g}"),
        steps=lambda tokens: max(1, math.ceil(chosen.epochs * rows_per_epoch * context / tokens)),
        steps_why=f"{chosen.epochs:g} epochs",
        why="derived from the model's size",
        warmup_share=0.03,
    )
    return make_plan(chosen, chosen, defaults, seed=seed)[0]


def _context(chosen: Settings, parent: "ModelFolder") -> int:
    limit = parent.config.max_position_embeddings
    if chosen.context and chosen.context > limit:
        raise UserError(
            f"context = {chosen.context}, but the model has {limit} positions", fix=f"use a context of at most {limit}"
        )
    return chosen.context or limit


def in_fixed_order(rows: Iterable["Row"]) -> list["Row"]:
    """Return rows in an order that depends on their content alone, so that the first ones are a fair choice."""
    return sorted(rows, key=lambda row: digest_of(row.record["messages"]))


def _asked(row: "Row") -> str:
    return str(row.question[-1]["content"]) if row.question else ""


def asker(tokenizer: "Tokenizer", questions: Sequence[str], tokens: int) -> "Sampler | None":
    """Return a sampler that answers fixed questions greedily."""
    if not tokens or not questions:
        return None

    def sample(decoder: "Decoder", step: int) -> list[tuple[str, str]]:
        turns = [[{"role": "user", "content": question}] for question in questions]
        return [
            (question, text)
            for question, (text, _) in zip(questions, _replies(decoder, tokenizer, turns, tokens), strict=True)
        ]

    return sample


def answered(decoder: "Decoder", tokenizer: "Tokenizer", rows: Sequence["Row"], tokens: int) -> list[Answer]:
    """Return the greedy answers to the questions of some rows."""
    replies = _replies(decoder, tokenizer, [row.question for row in rows], tokens)
    return [
        Answer(_asked(row), row.answer, text, ended, word_f1(text, row.answer))
        for row, (text, ended) in zip(rows, replies, strict=True)
    ]


def _replies(
    decoder: "Decoder", tokenizer: "Tokenizer", turns: Sequence[Sequence[Mapping[str, Any]]], tokens: int
) -> list[tuple[str, bool]]:
    """Return what the model says next and whether it ended its turn. A question without room for an answer gets none."""
    from caslon.engine.engine import Engine
    from caslon.engine.request import SamplingParams
    from caslon.engine.settings import EngineSettings

    limit = decoder.config.max_position_embeddings
    prompts = [tokenizer.encode_chat(part, add_generation_prompt=True).ids for part in turns]
    room = [min(tokens, limit - len(prompt)) for prompt in prompts]
    fitting = [place for place, free in enumerate(room) if free > 0]
    replies = [("", False)] * len(prompts)
    with Engine(decoder, tokenizer, EngineSettings(kv_memory_gib=ENGINE_CACHE_GIB)) as engine:
        params = [SamplingParams(max_tokens=room[place], temperature=0.0) for place in fitting]
        completions = engine.generate([prompts[place] for place in fitting], params)
    for place, completion in zip(fitting, completions, strict=True):
        replies[place] = (completion.text.strip(), completion.finish_reason == "stop")
    return replies


def word_f1(text: str, expected: str) -> float:
    """Return the harmonic mean of precision and recall of words, as question answering is scored (SQuAD, arXiv:1606.05250)."""
    said, wanted = (Counter(part.casefold().split()) for part in (text, expected))
    common = (said & wanted).total()
    return round(2 * common / (said.total() + wanted.total()), 4) if common else 0.0


def best_and_worst(answers: Sequence[Answer]) -> list[int]:
    """Return the places of twenty answers: the ten nearest to what was expected, and the ten farthest from it."""
    places = range(len(answers))
    ordered = sorted(places, key=lambda place: (-answers[place].f1, not answers[place].ended, place))
    half = SHOWN_ANSWERS // 2
    return ordered if len(ordered) <= SHOWN_ANSWERS else ordered[:half] + ordered[-half:]


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
