"""Gives a command one option for each sampling field."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from caslon.ui.fields import FIELDS, preset, read_bias

Preset = Annotated[str | None, typer.Option("--preset", help="lively or careful: values for fields not given")]


def with_sampling(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with `--preset` and an option for each sampling field; what was given reaches it as `params`."""
    own = [one for one in inspect.signature(command).parameters.values() if one.name != "params"]
    flags = [_parameter("preset_name", Preset)]
    for name, field in FIELDS.items():
        kind: Any = list[field.kind] if field.many else field.kind  # type: ignore[name-defined]
        flags.append(_parameter(name, Annotated[kind | None, typer.Option(help=field.help)]))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        params = preset(values.pop("preset_name"))
        given = {name: values.pop(name) for name in FIELDS}
        params |= {name: value for name, value in given.items() if value not in (None, [])}
        if "logit_bias" in params:
            params["logit_bias"] = read_bias(params["logit_bias"])
        command(**values, params=params)

    signature = inspect.Signature([*own, *flags])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    return run


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)
