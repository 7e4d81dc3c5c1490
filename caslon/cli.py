"""The command line. It parses, calls one function of the library, and prints; heavy libraries load inside the commands.

Exit codes: 0 done, 1 failed, 2 the user's mistake, 3 stopped and resumable, 4 storage, 5 diverged, 6 out of memory, 130 Ctrl-C.
"""

import signal
import sys
from importlib import metadata
from types import FrameType
from typing import Annotated, Any

import typer

from caslon import __version__
from caslon.commands import (
    ablation,
    bench,
    bench_reasoning,
    bench_service,
    corpus,
    corpus_chat,
    corpus_collect,
    corpus_inspect,
    corpus_sources,
    deploy,
    ladder,
    model_files,
    models,
    reasoning,
    recipes,
    results,
    scale,
    serving,
    tokenizer,
    tokenizer_compare,
    tokenizer_use,
    training,
)
from caslon.commands.output import group, say
from caslon.commands.processes import carried_out
from caslon.errors import CaslonError, Stopped, UserError

USAGE_ERROR: Any = (
    typer.BadParameter.__base__
)  # typer brings its own click in new versions, and uses click in older ones

app = group(
    no_args_is_help=True,
    help="Own your language model: from raw text to a served, observed assistant.",
    epilog="First steps: caslon run recipes/quickstart.toml",
)
app.add_typer(recipes.app)
app.add_typer(training.app)
app.add_typer(ablation.app)
app.add_typer(results.app)
app.add_typer(models.app)
app.add_typer(reasoning.app)
app.add_typer(serving.app)
app.add_typer(serving.keys_app, name="keys")
app.add_typer(serving.audit_app, name="audit")
app.command("import")(model_files.import_checkpoint)
app.add_typer(model_files.app, name="export")
app.add_typer(corpus.app, name="corpus")
app.add_typer(scale.app, name="scale")
BENCH_TOPICS = (bench, bench_service, bench_reasoning)
app.add_typer(BENCH_TOPICS[0].app, name="bench")
corpus.app.command()(corpus_inspect.inspect)
corpus.app.command()(corpus_collect.collect)
corpus.app.add_typer(corpus_sources.app, name="sources")
corpus.app.add_typer(corpus_chat.app, name="chat")
app.add_typer(deploy.app, name="deploy")
app.add_typer(ladder.app, name="ladder")
TOKENIZER_TOPICS = (tokenizer, tokenizer_use, tokenizer_compare)  # each adds its commands to one group
app.add_typer(TOKENIZER_TOPICS[0].app, name="tokenizer")


def main() -> None:
    """Entry point of the `caslon` command."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = carried_out(lambda: app(standalone_mode=False) or 0)
    except typer.Abort:
        code = 130
    except USAGE_ERROR as error:
        error.show()
        code = 2
    except CaslonError as error:
        print_error(error)
        code = error.exit_code
    except ModuleNotFoundError as error:
        print_error(missing_library(error))
        code = 2
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on from here\n")
        code = 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe went away, as `head` does; nothing is wrong
        code = 0
    sys.exit(code)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped("stopped by a signal", fix="the same command goes on from here")


def print_error(error: CaslonError) -> None:
    """Print an error for people on standard error."""
    sys.stderr.write(f"caslon: {error}\n")


def missing_library(error: ModuleNotFoundError) -> CaslonError:
    """Return the error for a library that is not installed, naming the extra of caslon that brings it."""
    library = (error.name or "").partition(".")[0]
    for requirement in metadata.requires("caslon") or []:
        name, _, extra = requirement.partition("extra ==")
        if library != "caslon" and name.replace("-", "_").lower().startswith(library.lower()) and extra:
            name = extra.strip().strip("\"'")
            return UserError(
                f"this needs the library '{library}', which is not installed", fix=f'pip install "caslon[{name}]"'
            )
    raise error


def _version(value: bool) -> None:
    if value:
        say(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    del version
