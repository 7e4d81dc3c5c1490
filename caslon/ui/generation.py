"""Continues prompts: as text while it is written, as JSON records, or as a table of outputs by settings.

The model is a folder, loaded into this process, or the URL of a server.
"""

import contextlib
import json as json_format
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from caslon.errors import CaslonError, UserError
from caslon.ui.fields import FIELDS, read_value
from caslon.ui.terminal import LocalModel, Model, Written, open_model

if TYPE_CHECKING:
    from caslon.engine.request import Completion


@dataclass(frozen=True)
class Opened:
    """Where the model is, and how to open it."""

    model_or_url: str
    api_key: str | None = None
    model_name: str | None = None
    engine: Mapping[str, Any] | None = None

    def __call__(self) -> contextlib.AbstractContextManager[Model]:
        """Give the model while a block runs."""
        return open_model(self.model_or_url, api_key=self.api_key, model_name=self.model_name, engine=self.engine)


def generate(
    opened: Opened,
    prompts: Sequence[str] | None,
    params: Mapping[str, Any],
    *,
    json: bool = False,
    stats: bool = False,
    console: Console | None = None,
    remarks: Console | None = None,
    read: Callable[[str], str] = input,
) -> None:
    """Write the continuation of each prompt as it comes, or with `json` a record a line. No prompts: ask for them.

    `remarks`, standard error by default, gets what `stats` tells.
    """
    console, remarks = console or Console(), remarks or Console(stderr=True)
    started = time.perf_counter()
    with opened() as model:
        if stats:
            _say(remarks, _header(model, time.perf_counter() - started))
        for prompt in _asked(read, remarks) if prompts is None else prompts:
            try:
                for written, seconds in _answers(model, prompt, params, None if json else console):
                    if json:
                        record = _record(prompt, written, seconds)
                        console.out(json_format.dumps(record, ensure_ascii=False), highlight=False)
                    if stats:
                        _say(remarks, _speed(written, seconds))
            except CaslonError as error:
                if prompts is not None:
                    raise
                _say(remarks, str(error))
        if stats and isinstance(model, LocalModel):
            _say(remarks, _memory(model))


def _asked(read: Callable[[str], str], remarks: Console) -> Iterator[str]:
    """Yield the lines that are typed, until the input ends."""
    _say(remarks, "each line is continued; Ctrl-D leaves")
    while True:
        try:
            line = read("> ")
        except EOFError:
            return
        if line:
            yield line


def _answers(
    model: Model, prompt: str, params: Mapping[str, Any], console: Console | None
) -> Iterator[tuple[Written, float]]:
    """Yield what was written for a prompt, and the seconds it took; shown on the console meanwhile, if there is one."""
    started = time.perf_counter()
    if isinstance(model, LocalModel) and (params.get("n", 1) > 1 or params.get("best_of")):
        ids = model.prompt_ids(prompt)
        for completion in model.engine.generate([ids], model.engine.params(**params)):
            if console is not None:
                console.out(completion.text, highlight=False)
            yield _written(completion), time.perf_counter() - started
        return
    written = Written()
    with contextlib.closing(model.complete(prompt, params, written)) as pieces:
        if console is None:
            for _ in pieces:
                pass
        else:
            _show(console, prompt, pieces)
    yield written, time.perf_counter() - started
    for other in written.completion.others if written.completion else ():
        if console is not None:
            console.out(other.text, highlight=False)
        yield _written(other), time.perf_counter() - started


def _written(completion: "Completion") -> Written:
    return Written(
        completion.text,
        completion.finish_reason,
        completion.prompt_tokens,
        len(completion.ids),
        completion,
    )


def _show(console: Console, prompt: str, pieces: Iterator[str]) -> None:
    if console.is_terminal:  # in a pipe only what the model wrote
        console.out(prompt, end="", style="dim", highlight=False)
    for piece in pieces:
        console.out(piece, end="", highlight=False)
        console.file.flush()
    console.out("")


def _record(prompt: str, written: Written, seconds: float) -> dict[str, Any]:
    record: dict[str, Any] = {
        "prompt": prompt,
        "text": written.text,
        "finish_reason": written.finish_reason,
        "prompt_tokens": written.prompt_tokens,
        "completion_tokens": written.completion_tokens,
        "seconds": round(seconds, 4),
    }
    completion = written.completion
    if completion is not None:
        record |= {
            "stop_reason": completion.stop_reason,
            "cached_tokens": completion.cached_tokens,
            "seed": completion.seed,
            "ids": completion.ids,
            "accepted": completion.guessed,
        }
        if completion.logprobs:
            record["logprobs"] = [asdict(entry) for entry in completion.logprobs]
    return record


def _header(model: Model, seconds: float) -> str:
    if not isinstance(model, LocalModel):
        return f"{model.name} on a server"
    engine = model.engine
    parameters = sum({id(one): one.numel() for one in engine.decoder.parameters()}.values())
    stats = engine.stats()
    return (
        f"{model.name}: {parameters:,} parameters, vocabulary {engine.tokenizer.vocab_size:,}, "
        f"context {engine.model_context:,} tokens, {engine.decoder.device}, loaded in {seconds:.1f} s; "
        f"{stats.blocks_total:,} blocks of {engine.settings.block_tokens} tokens"
    )


def _memory(model: LocalModel) -> str:
    stats = model.engine.stats()
    line = (
        f"{stats.blocks_used} of {stats.blocks_total:,} blocks used, {stats.blocks_known} known for reuse, "
        f"{stats.preemptions} preemptions"
    )
    guesses = stats.speculation
    if not guesses.drafted:
        return line
    places = ", ".join(f"{share:.0%}" for share in guesses.acceptance_by_place())
    return f"{line}; {guesses.accepted} of {guesses.drafted} guesses accepted, by place {places}"


def _speed(written: Written, seconds: float) -> str:
    completion = written.completion
    line = f"{written.completion_tokens} tokens in {seconds:.2f} s, {written.completion_tokens / seconds:.1f} tokens/s"
    if completion is None:
        return line
    if completion.times.first_token is not None:
        line = f"first token after {completion.times.first_token:.3f} s, {line}"
    guessed = f", {len(completion.guessed)} guessed ahead" if completion.guessed else ""
    return f"{line}, {completion.cached_tokens} of {completion.prompt_tokens} prompt tokens cached{guessed}"


def _say(console: Console, text: str) -> None:
    console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)


def write_grid(
    opened: Opened, prompts: Sequence[str], params: Mapping[str, Any], axes: Sequence[str], output: Path
) -> None:
    """Write the table of all prompts by all settings to `output` (HTML) and the same beside it as JSON."""
    from caslon.ui.grid import grid_page, grid_rows

    settings = _settings(axes)
    with opened() as model:
        if not isinstance(model, LocalModel):
            raise UserError("a grid needs a model folder", fix="give the folder, not the URL of a server")
        rows = grid_rows(model, prompts, params, settings)
    try:
        output.with_suffix(".json").write_text(json_format.dumps(rows, indent=2, ensure_ascii=False) + "\n", "utf-8")
        output.write_text(grid_page(rows, model.name), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the table: {error.strerror}", where=str(output)) from None
    _say(Console(stderr=True), f"{len(rows)} answers in {output} and {output.with_suffix('.json')}")


def _settings(axes: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of each field from texts like temperature=0.2,0.7."""
    found = {}
    for axis in axes:
        name, equals, values = axis.partition("=")
        if name not in FIELDS or FIELDS[name].many or not equals:
            raise UserError(
                f"'{axis}' is no axis", where="--grid", fix="write NAME=VALUE,VALUE as in temperature=0.2,1"
            )
        found[name] = [read_value(name, value) for value in values.split(",")]
    return found
