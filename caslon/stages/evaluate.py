"""`[evaluate]`: a model beside honest baselines on text it has not seen, what it writes, and what of that it has read before.

Writes `scores.json` and `samples.json`, the same bytes for the same inputs, and a report.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caslon.evaluate.settings import EvaluateSettings
from caslon.folders import write_atomic
from caslon.stages.stage import PlanContext, PlanRow, StageContext

if TYPE_CHECKING:
    from caslon.evaluate.bits_per_byte import TextScore
    from caslon.evaluate.samples import WrittenText
    from caslon.model.folder import ModelFolder
    from caslon.tokenizer.encode import TokenSplit

VERSION = 1
READS: Sequence[str] = ("model", "tokens", "text")
WRITES: str | None = "scores"
NEEDS = {"plotly": "report", "zstandard": "evaluate", "pydivsufsort": "evaluate"}
Settings = EvaluateSettings

SCORES_FILE = "scores.json"
SAMPLES_FILE = "samples.json"
MODEL_FOLDER = "model"
TOKENS_FOLDER = "tokens"
WORST_DOCUMENTS = 5
WORST_CHARACTERS = 400


@dataclass(frozen=True)
class _ScoredText:
    """The documents of the split that are scored, in the order of the corpus."""

    split: "TokenSplit"
    numbers: list[int]
    document_ids: list[str]
    document_bytes: list[int]
    texts: list[str]

    @property
    def data(self) -> bytes:
        """The scored bytes, documents one after another."""
        return "".join(self.texts).encode()


def plan(context: PlanContext) -> list[PlanRow]:
    """Return what will be measured."""
    settings: EvaluateSettings = context.settings
    rows = [PlanRow("tasks", ", ".join(settings.tasks), "", "evaluate.tasks")]
    if "tokens" in context.inputs:
        size = context.inputs["tokens"].manifest.totals.get(f"{settings.split}_bytes", 0)
        scored = min(size, settings.max_bytes) if settings.max_bytes else size
        rows.append(PlanRow("scored text", scored, "bytes", f"of {size:,} in the {settings.split} split"))
    texts = len(settings.temperatures) * (len(settings.prompts) or settings.prompt_count)
    if "samples" in settings.tasks:
        rows.append(PlanRow("samples", texts, "texts", "temperatures x prompts"))
    return rows


def run(context: StageContext) -> dict[str, Any]:
    """Measure, write the scores and samples, and return the headline figures."""
    from caslon.evaluate.report import write_report
    from caslon.model.folder import ModelFolder

    settings: EvaluateSettings = context.settings
    model = ModelFolder.open(context.inputs["model"].path / MODEL_FOLDER)
    scored = _scored_text(context)
    scores: dict[str, Any] = {
        "model": {"digest": model.digest(), "tokenizer_digest": scored.split.tokenizer_digest},
        "text": _about(scored, settings),
    }
    samples: list[dict[str, Any]] = []
    if "bits_per_byte" in settings.tasks:
        scores["bits_per_byte"] = _bits_per_byte(context, model, scored)
    if "baselines" in settings.tasks:
        scores["baselines"] = _baselines(context, scored)
    if "samples" in settings.tasks or "spans" in settings.tasks:
        scores["samples"], samples = _samples(context, model, scored)
    _write(context.folder / SCORES_FILE, scores)
    _write(context.folder / SAMPLES_FILE, samples)
    write_report(context.folder / "report.html", scores, samples)
    return _totals(scores)


def _scored_text(context: StageContext) -> _ScoredText:
    from caslon.errors import UserError
    from caslon.evaluate.bits_per_byte import chosen_documents
    from caslon.tokenizer.encode import TokenSplit

    settings: EvaluateSettings = context.settings
    split = TokenSplit.open(context.inputs["tokens"].path / TOKENS_FOLDER, settings.split)
    sizes, ids = split.document_bytes().tolist(), split.document_ids()
    if not sum(sizes):
        raise UserError(
            f"the {settings.split} split holds no text", where=f"[{context.name}]", fix="use a larger corpus or split"
        )
    numbers = chosen_documents(sizes, settings.max_bytes, context.seed)
    wanted = {ids[number] for number in numbers}
    corpus = context.inputs["text"].path
    texts = dict(unit for unit in _units(corpus, settings.split, split.meta.unit) if unit[0] in wanted)
    missing = wanted - texts.keys()
    if missing:
        raise UserError(
            f"{len(missing)} documents of the token files are not in the corpus, {min(missing)} for one",
            where=str(corpus),
            fix="name the corpus the tokens were made from: text = ... in the recipe",
        )
    return _ScoredText(
        split, numbers, [ids[n] for n in numbers], [sizes[n] for n in numbers], [texts[ids[n]] for n in numbers]
    )


def _units(corpus: Path, split: str, unit: str) -> Iterator[tuple[str, str]]:
    from caslon.corpus.shards import read_segments, read_texts

    if unit == "segment":
        return ((segment.id, segment.text) for segment in read_segments(corpus, split))
    return read_texts(corpus, split)


def _training_documents(context: StageContext) -> Iterator[tuple[str, str]]:
    """Yield the training documents the baselines and the spans know: all, or so many at random."""
    from caslon.corpus.shards import read_texts
    from caslon.evaluate.bits_per_byte import chosen_documents

    settings: EvaluateSettings = context.settings
    corpus = context.inputs["text"].path
    sizes = [len(text.encode()) for _, text in read_texts(corpus, "train")]
    chosen = set(chosen_documents(sizes, settings.max_train_bytes, context.seed))
    return (pair for number, pair in enumerate(read_texts(corpus, "train")) if number in chosen)


def _about(scored: _ScoredText, settings: EvaluateSettings) -> dict[str, Any]:
    return {
        "split": settings.split,
        "dataset_id": scored.split.dataset_id,
        "documents": len(scored.numbers),
        "bytes": sum(scored.document_bytes),
        "split_documents": len(scored.split.document_starts) - 1,
        "split_bytes": scored.split.text_bytes,
    }


def _bits_per_byte(context: StageContext, model: "ModelFolder", scored: _ScoredText) -> dict[str, Any]:
    from caslon.evaluate.bits_per_byte import score_documents

    settings: EvaluateSettings = context.settings
    length = model.config.max_position_embeddings
    stride = max(1, round(settings.stride * length))
    tokenizer = model.tokenizer()
    score = score_documents(
        model.load(),
        [scored.split.document(number) for number in scored.numbers],
        scored.document_bytes,
        start_id=scored.split.end_of_text_id,
        context=length,
        stride=stride,
        token_bytes=[len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)],
        report=lambda done, total: context.events.progress("score", done, total, "tokens"),
    )
    return {
        "value": score.bits_per_byte,
        "interval": asdict(score.interval) if score.interval else None,
        "nats": score.nats,
        "tokens": score.tokens,
        "bytes": score.bytes,
        "perplexity": score.perplexity,
        "context_tokens": length,
        "stride_tokens": stride,
        "metric_version": 1,
        "worst_documents": _worst(score, scored),
    }


def _worst(score: "TextScore", scored: _ScoredText) -> list[dict[str, Any]]:
    worst = sorted(score.documents, key=lambda item: (-item.bits_per_byte, item.document))[:WORST_DOCUMENTS]
    return [
        {
            "document_id": scored.document_ids[item.document],
            "bits_per_byte": item.bits_per_byte,
            "bytes": item.bytes,
            "text": scored.texts[item.document][:WORST_CHARACTERS],
        }
        for item in worst
    ]


def _baselines(context: StageContext, scored: _ScoredText) -> dict[str, Any]:
    from caslon.evaluate.baselines import baselines

    settings: EvaluateSettings = context.settings
    train = "".join(text for _, text in _training_documents(context)).encode()
    rungs = baselines(
        train,
        scored.data,
        ngram_orders=settings.ngram_orders,
        compressors=settings.compressors,
        workers=settings.workers,
        report=lambda phase: context.events.progress(phase, 0, 0, "bytes"),
    )
    return {"train_bytes": len(train), "test_bytes": len(scored.data), "rungs": [asdict(rung) for rung in rungs]}


def _samples(
    context: StageContext, model: "ModelFolder", scored: _ScoredText
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from caslon.engine.engine import Engine
    from caslon.evaluate.samples import opening, spread, sweep, sweep_rows

    settings: EvaluateSettings = context.settings
    prompts = settings.prompts or [opening(text) for text in spread(scored.texts, settings.prompt_count)]
    engine = Engine(model.load(), model.tokenizer(), generation_config=model.generation_config)
    try:
        context.events.progress("write samples", 0, 0, "texts")
        texts = sweep(
            engine,
            prompts,
            settings.temperatures,
            max_tokens=settings.sample_tokens,
            top_p=settings.top_p,
            seed=context.seed,
        )
    finally:
        engine.close()
    summary: dict[str, Any] = {"sweep": [asdict(row) for row in sweep_rows(texts)]}
    if "spans" not in settings.tasks:
        return summary, [asdict(text) for text in texts]
    found = _spans(context, texts, scored)
    return summary | found[0], found[1]


def _spans(
    context: StageContext, texts: "Sequence[WrittenText]", scored: _ScoredText
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from caslon.evaluate.samples import spread
    from caslon.evaluate.spans import TrainingText, copied_spans, coverage

    settings: EvaluateSettings = context.settings
    context.events.progress("index training text", 0, 0, "bytes")
    training = TrainingText(_training_documents(context))
    spans = [copied_spans(training, text.text, fewest_words=settings.span_words) for text in texts]
    human = [text[: 4 * settings.sample_tokens] for text in spread(scored.texts, len(texts))]
    human_spans = [copied_spans(training, text, fewest_words=settings.span_words) for text in human]
    samples = [
        {**asdict(text), "copied_share": coverage(text.text, found), "spans": [asdict(span) for span in found]}
        for text, found in zip(texts, spans, strict=True)
    ]
    return {
        "spans": {
            "train_bytes": len(training.text) - len(training.document_ids),
            "fewest_words": settings.span_words,
            "samples_with_spans": sum(bool(found) for found in spans),
            "longest_words": max((span.words for found in spans for span in found), default=0),
            "copied_share": _mean([sample["copied_share"] for sample in samples]),
            "unseen_text_copied_share": _mean([coverage(*pair) for pair in zip(human, human_spans, strict=True)]),
        }
    }, samples


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _totals(scores: dict[str, Any]) -> dict[str, Any]:
    totals: dict[str, Any] = {}
    if score := scores.get("bits_per_byte"):
        totals |= {"test_bpb": round(score["value"], 4), "perplexity": round(score["perplexity"], 3)}
        totals |= {"scored_tokens": score["tokens"], "scored_bytes": score["bytes"]}
    if found := scores.get("baselines"):
        grams = [rung["given_train"] for rung in found["rungs"] if rung["name"].endswith("-gram")]
        if grams:
            totals["best_ngram_bpb"] = round(min(grams), 4)
    if found := scores.get("samples", {}).get("spans"):
        totals["longest_copied_words"] = found["longest_words"]
    return totals


def _write(path: Path, value: object) -> None:
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
