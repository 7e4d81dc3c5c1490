"""A conversation to its text by a model folder's Jinja template, as transformers' `apply_chat_template` renders it.

Templates come with models, so they run in a sandbox and see plain JSON values only.
"""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from caslon.errors import UserError

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")  # the names a message's reasoning goes by


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    names: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of a conversation. `names` are further variables, as `bos_token`.

    `UserError` carries the template's own message and line when it fails or refuses the conversation.
    """
    try:
        return _compiled(template).render(
            messages=[_with_reasoning(message) for message in messages],
            tools=list(tools) if tools else None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **(names or {}),
        )
    except jinja2.TemplateSyntaxError as error:
        raise UserError(
            f"the chat template is not valid Jinja: {error.message}",
            where=f"chat_template.jinja, line {error.lineno}",
            fix="restore the template of the model folder",
        ) from error
    except (jinja2.TemplateError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(
            f"the chat template refuses this conversation: {error}",
            where=f"chat_template.jinja, line {_template_line(error)}",
            fix="send messages in the form this model's template asks for",
        ) from error


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    reasoning = next((message[name] for name in REASONING_FIELDS if message.get(name) is not None), None)
    if reasoning is None:
        return dict(message)
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _template_line(error: BaseException) -> int | str:
    line: int | str = "unknown"
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":  # Jinja rewrites tracebacks to template lines
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


class _Generation(jinja2.ext.Extension):
    """Renders `{% generation %}...{% endgeneration %}`, which marks the assistant's own text, as what it holds."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's interface)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=32)
def _compiled(template: str) -> jinja2.Template:
    # The same options, filters and globals as transformers, so that every published template renders the same.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    globals_: dict[str, Callable[..., Any]] = {"raise_exception": _refuse, "strftime_now": _now}
    environment.globals.update(globals_)
    return environment.from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> str:
    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
