"""Commands of the ladder: train every kind of language model on one text, or write like its author."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from caslon.commands.output import JsonOption, group, print_json, print_table, say

DEFAULT_COMMAND = "climb"
SHOWN_SAMPLE = 40


class ClimbByDefault(TyperGroup):
    """`caslon ladder TEXT` is `caslon ladder climb TEXT`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command before arguments that begin with none."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


app = group(cls=ClimbByDefault, no_args_is_help=True, help="Compare language models of every age on one text.")

CorpusArgument = Annotated[
    Path, typer.Argument(help="a text file, a corpus folder or a run", metavar="CORPUS", show_default=False)
]
SeedOption = Annotated[int, typer.Option(help="same seed, same result")]
PromptOption = Annotated[str, typer.Option("--prompt", "-p", help="what the samples go on from")]
MaxTrainOption = Annotated[int, typer.Option(help="bytes to learn from, at most", min=1_000)]


@app.command()
def climb(
    corpus: CorpusArgument,
    rung: Annotated[list[str], typer.Option(help="only this rung (repeatable)")] = [],  # noqa: B006  typer copies it
    out: Annotated[Path, typer.Option(help="where the page and finished rungs are kept")] = Path("ladder"),
    steps: Annotated[
        int | None, typer.Option(help="training steps of the networks; default: each its own", min=2)
    ] = None,
    prompt: PromptOption = "\n",
    sample_bytes: Annotated[int, typer.Option(help="bytes each rung writes", min=0)] = 200,
    max_train_bytes: MaxTrainOption = 20_000_000,
    max_validation_bytes: Annotated[int, typer.Option(help="bytes to be judged by, at most", min=1_000)] = 500_000,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Train all rungs on the same bytes and print one table; stopped, the same command goes on with the next rung."""
    from caslon.ladder.climb import Sampling, as_numbers, climb
    from caslon.ladder.page import COLUMNS, write_ladder_page
    from caslon.ladder.rungs import all_rungs, chosen_rungs
    from caslon.ladder.text import ladder_text
    from caslon.observe.console import ConsoleDisplay
    from caslon.observe.events import EventLog

    text = ladder_text(corpus, max_train_bytes=max_train_bytes, max_validation_bytes=max_validation_bytes)
    rungs = chosen_rungs(rung, all_rungs(seed=seed, steps=steps))
    with ConsoleDisplay() as display, EventLog(None, (display,)) as events:
        found = climb(text, rungs, out, events, Sampling(prompt.encode(), sample_bytes, seed))
    numbers = as_numbers(text, found)
    page = out / "ladder.html"
    write_ladder_page(page, numbers)
    if as_json:
        print_json({**numbers, "page": str(page)})
        return
    print_table((*COLUMNS, "sample"), (_shown(item) for item in numbers["rungs"]))
    for line in numbers["conclusions"]:
        say(line)
    say(f"written: {page}")
    say(f"write like this author: caslon ladder write {corpus}")


@app.command()
def write(
    corpus: CorpusArgument,
    order: Annotated[int, typer.Option(help="bytes the author remembers: 1 is the Markov chain", min=0, max=8)] = 1,
    length: Annotated[int, typer.Option(help="bytes to write", min=1)] = 500,
    prompt: PromptOption = "\n",
    max_train_bytes: MaxTrainOption = 20_000_000,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Write like the author of a text, by a Markov chain over its bytes."""
    from caslon.ladder.author import Author
    from caslon.ladder.text import ladder_text

    text = ladder_text(corpus, max_train_bytes=max_train_bytes, max_validation_bytes=max_train_bytes)
    written = Author.of(text.train, order).write(prompt.encode(), length, seed).decode("utf-8", errors="replace")
    print_json({"prompt": prompt, "text": written}) if as_json else say(prompt.lstrip("\n") + written)


@app.command()
def classify(
    train: Annotated[Path, typer.Argument(help="labelled texts to learn from", metavar="TRAIN", show_default=False)],
    test: Annotated[Path, typer.Argument(help="others, to be judged by", metavar="TEST", show_default=False)],
    epochs: Annotated[int, typer.Option(help="times the networks read each text", min=1)] = 4,
    seed: SeedOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Train the older text classifiers and print what each gets right among unseen texts, beside the majority.

    A file holds JSON lines with "text" and "label" (.jsonl), or lines that begin with their label; .gz is read too.
    """
    import tempfile

    from caslon.ladder.classify import classify
    from caslon.ladder.labelled import labelled_texts
    from caslon.observe.console import ConsoleDisplay
    from caslon.observe.events import EventLog

    texts, unseen = labelled_texts(train), labelled_texts(test)
    with tempfile.TemporaryDirectory() as folder, ConsoleDisplay() as display, EventLog(None, (display,)) as events:
        found = classify(texts, unseen, Path(folder), events, epochs=epochs, seed=seed)
    if as_json:
        print_json(found)
        return
    print_table(
        ("classifier", "accuracy", "right", "of", "holds", "training"),
        (
            (item["classifier"], f"{item['accuracy']:.4f}", item["right"], found["test_texts"],
             f"{item['numbers']:,} {item['holds']}", f"{item['train_seconds']:.1f} s")
            for item in found["classifiers"]
        ),
    )  # fmt: skip
    say("accuracy is that on texts no classifier has learnt from; the majority knows no words at all")


def _shown(rung: Any) -> tuple[object, ...]:
    from caslon.ladder.page import row

    name, bits, *rest = row(rung)
    return name, f"{bits:.4f}", *rest, rung["sample"][:SHOWN_SAMPLE].replace("\n", "⏎")
