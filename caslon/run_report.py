"""A run folder to one page: the path with counts, curves, comparison with baselines, texts, what was dropped, plan and actual.

Everything comes from the stage folders: manifests, event logs and JSON files. A stage that has not run is shown as missing.
The same figures go to `report.json` beside the page.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from caslon.corpus.document import Reject
from caslon.errors import UserError
from caslon.evaluate import report as evaluation
from caslon.folders import MANIFEST, PARTIAL, StageFolder
from caslon.report.answers import answer_blocks, transcript_block
from caslon.report.comparison import comparison_page, trained_stages
from caslon.report.curves import curve_blocks, expert_maps, sample_block, warnings
from caslon.report.page import (
    Block,
    Chart,
    Details,
    Fact,
    Facts,
    Level,
    Notice,
    Page,
    PathStep,
    Section,
    Series,
    Table,
    Text,
    Value,
    readable_bytes,
    readable_seconds,
    share,
    write_page,
)
from caslon.report.page import Path as PathBlock
from caslon.report.published import published_blocks
from caslon.report.record import MODEL_FOLDER, environment_section, plan_section, repeat_section
from caslon.report.training import training_facts
from caslon.stages.stage import KINDS
from caslon.train.forecast import MANY_EPOCHS

LOG = "events.jsonl"
LOOKED_AT_REJECTS = 5_000  # of which examples are taken
EXAMPLES_PER_CODE = 3
EXAMPLE_CHARACTERS = 300
SPLITS = ("train", "validation", "test")
PATH_FIGURES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "corpus": (("documents", "documents"), ("text_bytes", "bytes"), ("rejected", "rejected")),
    "tokenizer": (("vocab_size", "entries"), ("train_tokens", "training tokens")),
    "pretrain": (
        ("parameters", "parameters"),
        ("tokens", "tokens seen"),
        ("val_bpb", "bits per byte"),
    ),
    "finetune": (("questions", "unseen questions"), ("answers_ended_share", "share ended by itself")),
    "evaluate": (("test_bpb", "bits per byte"), ("best_ngram_bpb", "best n-gram")),
    "serve": (("completions", "completions"), ("chats", "chat turns")),
}

Json = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """Everything a report is made from."""

    folder: Path
    stages: dict[str, StageFolder]  # by name, in the order of work
    planned: list[str]  # stage names of the recipe
    plan: list[Json]
    recipe: str

    def of_kind(self, kind: str) -> list[StageFolder]:
        """Return the finished stages of a kind."""
        return [folder for name, folder in self.stages.items() if name.partition(".")[0] == kind]

    def total(self, kind: str, name: str) -> Any:
        """Return a figure of the first finished stage of a kind, or None."""
        return next((folder.manifest.totals.get(name) for folder in self.of_kind(kind)), None)


def write_run_report(run_folder: Path) -> Path:
    """Write `report.html` and `report.json` into a run folder and return the page's path.

    Stages that are missing or unfinished are shown as such; `UserError` when nothing has finished.
    """
    run = read_run(run_folder)
    model = _last_model(run)
    sections = [
        _overview(run),
        *_corpus_sections(run),
        *_training_sections(run),
        *_evaluation_sections(run),
        *_serving_sections(run),
        *([plan_section(run.plan, run.stages)] if run.plan else []),
        environment_section(run.stages),
        repeat_section(run.folder, run.stages, run.recipe, model.path.name if model else ""),
    ]
    page = Page(
        title=run_folder.resolve().name,
        subtitle=_subtitle(run),
        sections=sections,
        kicker="caslon run",
        footer="Every figure on this page also stands in report.json.",
        numbers=_numbers(run),
    )
    path = run_folder / "report.html"
    write_page(path, page)
    return path


def write_comparison(run_folders: Sequence[Path], path: Path) -> Path:
    """Write one page on the trainings of several runs (and its figures as JSON beside it); `UserError` with fewer than two."""
    runs = trained_stages(run_folders, lambda folder: list(read_run(folder).stages.values()))
    if len(runs) < 2:
        raise UserError("there are no two trainings to compare", where=", ".join(map(str, run_folders)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(path, comparison_page(runs))
    return path


def read_run(run_folder: Path) -> Run:
    """Return what is in a run folder."""
    found = [
        StageFolder.open(path.parent)
        for path in run_folder.glob(f"*/{MANIFEST}")
        if not path.parent.name.endswith(PARTIAL)
    ]
    if not found:
        raise UserError("no stage of this run has finished", where=str(run_folder), fix="caslon run RECIPE")
    planned = list(_read_json(run_folder / "resolved.json", {}).get("stages", {}))
    names = [folder.path.name for folder in found]
    order = [*[name for name in planned if name in names], *sorted(set(names) - set(planned), key=_kind_order)]
    by_name = {folder.path.name: folder for folder in found}
    recipe = run_folder / "recipe.toml"
    return Run(
        run_folder,
        {name: by_name[name] for name in order},
        planned or order,
        _read_json(run_folder / "plan.json", []),
        recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
    )


def _kind_order(name: str) -> tuple[int, str]:
    kind = name.partition(".")[0]
    return (KINDS.index(kind) if kind in KINDS else len(KINDS), name)


def _read_json(path: Path, missing: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else missing


# --- overview ----------------------------------------------------------------------------------------------------------


def _subtitle(run: Run) -> str:
    parameters, score = run.total("pretrain", "parameters"), run.total("evaluate", "test_bpb")
    model = f"A language model of {parameters:,} parameters" if parameters else "A run without a model yet"
    reached = f", {score:.3f} bits per byte on text it has not seen" if score else ""
    return f"{model}{reached}, in {readable_seconds(_seconds(run))}."


def _seconds(run: Run) -> float:
    return sum(folder.manifest.seconds for folder in run.stages.values())


def _overview(run: Run) -> Section:
    scores = _scores(run)
    missing = [name for name in run.planned if name not in run.stages]
    notices: list[Block] = list(evaluation.verdicts(scores)) if scores else []
    if missing:
        notices.append(Notice(f"Not finished: {', '.join(missing)}.", "warning"))
    for name, folder in run.stages.items():
        notices += [Notice(f"{name}: {text}", "warning") for text in warnings(folder.path / LOG)]
    steps = [_path_step(name, run.stages.get(name)) for name in run.planned]
    return Section("Overview", [*notices, *_headline(run), PathBlock(steps)])


def _headline(run: Run) -> list[Block]:
    facts = []
    scores = _scores(run)
    if scores and "bits_per_byte" in scores:
        score = scores["bits_per_byte"]
        interval = score["interval"]
        note = (
            f"95 % interval {interval['low']:.3f} to {interval['high']:.3f}"
            if interval
            else "no interval: too little text"
        )
        facts.append(Fact("Bits per byte, unseen text", round(score["value"], 3), "bits", note))
    for kind, name, label, unit in (
        ("pretrain", "parameters", "Parameters", ""),
        ("pretrain", "tokens", "Tokens seen in training", "tokens"),
        ("corpus", "documents", "Documents", ""),
    ):
        if (value := run.total(kind, name)) is not None:
            facts.append(Fact(label, value, unit))
    facts.append(Fact("Time", readable_seconds(_seconds(run)), "", "all stages together"))
    memory = max((folder.manifest.totals.get("peak_memory_bytes", 0) for folder in run.stages.values()), default=0)
    if memory:
        facts.append(Fact("Peak memory", readable_bytes(memory)))
    if folder := _last_model(run):
        facts.append(Fact("Model", f"{folder.path.name}/{MODEL_FOLDER}", "", "a Hugging Face model folder"))
    return [Facts(facts)]


def _last_model(run: Run) -> StageFolder | None:
    return next((f for f in reversed(run.stages.values()) if (f.path / MODEL_FOLDER / "config.json").is_file()), None)


def _path_step(name: str, folder: StageFolder | None) -> PathStep:
    if folder is None:
        return PathStep(name, note="not finished", missing=True)
    totals = _flat_totals(folder)
    wanted = PATH_FIGURES.get(name.partition(".")[0]) or [(key, key.replace("_", " ")) for key in list(totals)[:3]]
    counts = [(label, _path_value(key, totals[key])) for key, label in wanted if key in totals]
    return PathStep(name, counts, note=readable_seconds(folder.manifest.seconds))


def _path_value(name: str, value: Value) -> Value:
    return readable_bytes(value) if name.endswith("bytes") and isinstance(value, int) else value


def _flat_totals(folder: StageFolder) -> dict[str, Value]:
    totals = dict(folder.manifest.totals)
    totals.pop("peak_memory_bytes", None)
    if isinstance(rejects := totals.get("rejects"), dict):
        totals["rejected"] = sum(rejects.values())
    return {name: value for name, value in totals.items() if isinstance(value, str | int | float)}


# --- corpus ------------------------------------------------------------------------------------------------------------


def _corpus_sections(run: Run) -> Iterator[Section]:
    for folder in run.of_kind("corpus"):
        totals = folder.manifest.totals
        blocks = [*_funnel(totals), *_split_table(totals)]
        if blocks:
            yield Section("Corpus", blocks, intro="What was read, what each step let through, and how it was divided.")
        if totals.get("rejects"):
            yield Section("What was rejected, and why", _rejects(folder.path, totals["rejects"]))


def _funnel(totals: Json) -> list[Block]:
    steps = totals.get("steps")
    if not steps:
        return []
    columns = ["step", "documents in", "out", "rejected", "characters in", "out"]
    names = ("documents_in", "documents_out", "documents_rejected", "characters_in", "characters_out")
    rows = [[step, *(counts.get(name, 0) for name in names)] for step, counts in steps.items()]
    # A manifest sorts its keys; each step takes what the one before it let through, so the sizes tell the order.
    rows.sort(key=lambda row: (-row[1], -row[4], -row[2], -row[5]))
    return [Table(columns, rows, caption="Steps")]


def _split_table(totals: Json) -> list[Block]:
    splits = totals.get("splits")
    if not splits:
        return []
    whole = sum(split["characters"] for split in splits.values())
    rows = [
        [name, split["documents"], split["segments"], split["characters"], share(split["characters"], whole)]
        for name, split in sorted(splits.items(), key=lambda item: SPLITS.index(item[0]))
    ]
    return [Table(["split", "documents", "segments", "characters", "share"], rows, caption="Splits, by document")]


def _rejects(corpus: Path, rejects: Mapping[str, int]) -> list[Block]:
    codes = sorted(rejects, key=lambda code: -rejects[code])
    chart = Chart(
        "Rejects by reason",
        [Series("documents", [rejects[code] for code in codes], codes)],
        kind="bar",
        horizontal=True,
        x_label="",
        y_label="documents",
        x_log=False,
    )
    examples = _reject_examples(corpus)
    columns = ["document", "from", "reason", "text"]
    folded: list[Block] = [
        Details(
            f"{code}: {rejects[code]:,}, of which {len(examples[code])} shown",
            [Table(columns, [_reject_row(item) for item in examples[code]])],
        )
        for code in codes
        if code in examples
    ]
    hint = Text("Every rejected text is kept whole; caslon why ID prints one with its reason.")
    return [chart, *folded, hint]


def _reject_examples(corpus: Path) -> dict[str, list[Reject]]:
    from caslon.corpus.shards import read_rejects

    examples: dict[str, list[Reject]] = {}
    if not (corpus / "rejects").is_dir():
        return {}
    for item in islice(read_rejects(corpus), LOOKED_AT_REJECTS):
        found = examples.setdefault(item.code, [])
        if len(found) < EXAMPLES_PER_CODE:
            found.append(item)
    return examples


def _reject_row(item: Reject) -> list[Value]:
    return [item.id, item.origin.address, item.reason, _cut(item.text)]


def _cut(text: str) -> str:
    return text if len(text) <= EXAMPLE_CHARACTERS else text[:EXAMPLE_CHARACTERS] + " …"


# --- training ----------------------------------------------------------------------------------------------------------


def _training_sections(run: Run) -> Iterator[Section]:
    for name, folder in run.stages.items():
        kind = name.partition(".")[0]
        log = folder.path / LOG
        levels = _levels(_scores(run)) if kind == "pretrain" else ()
        if blocks := curve_blocks(log, levels):
            published = (
                published_blocks(run.folder.resolve().name, folder.manifest.totals) if kind == "pretrain" else []
            )
            yield Section(f"Training: {name}", [*training_facts(folder, MANY_EPOCHS), *blocks, *published])
        if maps := expert_maps(log):
            yield Section(f"Experts: {name}", maps, intro="Which experts read which tokens, after the last step.")
        if texts := sample_block(log):
            yield Section(f"Samples by step: {name}", [texts], intro="The same prompts and seeds at every step.")
        if answers := _read_json(folder.path / "answers.json", {}).get("answers"):
            yield Section(f"Answers: {name}", answer_blocks(folder.manifest.totals, answers))


def _levels(scores: Json | None) -> list[Level]:
    """The best n-gram model, and the compressors that know the training text, as lines across the curve."""
    rungs = scores.get("baselines", {}).get("rungs", []) if scores else []
    given = [rung for rung in rungs if rung["given_train"] is not None]
    grams = sorted((rung for rung in given if rung["name"].endswith("-gram")), key=lambda rung: rung["given_train"])
    others = [rung for rung in given if rung["name"].startswith(("xz", "zstd"))]
    levels = [Level(f"{rung['name']}, given training", rung["given_train"]) for rung in [*grams[:1], *others]]
    return levels + [Level(f"{rung['name']} alone", rung["alone"]) for rung in rungs if rung["name"].startswith("xz")]


# --- serving -----------------------------------------------------------------------------------------------------------


def _serving_sections(run: Run) -> Iterator[Section]:
    for folder in run.of_kind("serve"):
        if texts := transcript_block(_read_json(folder.path / "transcript.json", {})):
            intro = "Asked through HTTP; each answer equals the engine's and, token for token, the plain decoder's."
            yield Section("What the server answered", [texts], intro=intro)


# --- evaluation --------------------------------------------------------------------------------------------------------


def _scores(run: Run) -> Json | None:
    return next((_read_json(folder.path / "scores.json", None) for folder in run.of_kind("evaluate")), None)


def _evaluation_sections(run: Run) -> Iterator[Section]:
    for folder in run.of_kind("evaluate"):
        scores = _read_json(folder.path / "scores.json", None)
        samples = _read_json(folder.path / "samples.json", [])
        if not scores:
            continue
        blocks = [*evaluation.score_facts(scores), *(evaluation.ladder(scores) if "baselines" in scores else [])]
        yield Section(f"How good it is: {folder.path.name}", blocks)
        if samples:
            yield Section("What it writes", evaluation.written(scores, samples))
        if scores.get("samples", {}).get("spans"):
            yield Section("What it has read before", evaluation.copied(scores, samples))


# --- numbers -----------------------------------------------------------------------------------------------------------


def _numbers(run: Run) -> Json:
    """Return every figure of the page as JSON values."""
    return {
        "run": run.folder.resolve().name,
        "seconds": _seconds(run),
        "stages": {name: _stage_numbers(folder) for name, folder in run.stages.items()},
        "missing": [name for name in run.planned if name not in run.stages],
        "plan": run.plan,
        "scores": _scores(run),
    }


def _stage_numbers(folder: StageFolder) -> Json:
    kept = asdict(folder.manifest)
    del kept["files"]
    return kept
