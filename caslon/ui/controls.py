"""The page's controls to the fields of an API request, so that page and API can never differ; and that request as code."""

import json
import secrets
import shlex
from typing import Any

import gradio as gr

from caslon.errors import UserError
from caslon.server.service import Service

START_TEMPERATURE = 0.8  # a page is for trying things: always the likeliest token would show one answer only
NAMES = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "form",
    "form_text",
)
WHOLE = ("max_tokens", "top_k")
FREE = "free text"
FORMS = {
    FREE: None,
    "any JSON object": "json_object",
    "JSON schema": "json_schema",
    "regular expression": "regex",
    "choice, one on a line": "choice",
    "grammar": "grammar",
}

Value = float | str | None


def fields_of(values: tuple[Value, ...]) -> dict[str, Any]:
    """Return the fields of the request that the controls stand for, their values in the order of `controls`."""
    chosen: dict[str, Any] = dict(zip(NAMES, values, strict=True))
    form, text = chosen.pop("form"), str(chosen.pop("form_text") or "")
    for name in WHOLE:
        chosen[name] = int(chosen[name])
    chosen["seed"] = _seed(str(chosen["seed"] or ""))
    # Written one on a line, with \\n for a line end.
    stops = [stop.replace("\\n", "\n") for stop in str(chosen["stop"] or "").splitlines() if stop]
    chosen["stop"] = stops or None
    chosen["response_format"] = _response_format(FORMS[str(form)], text)
    return {name: value for name, value in chosen.items() if value is not None}


def _response_format(kind: str | None, text: str) -> dict[str, Any] | None:
    if kind is None:
        return None
    if kind == "json_schema":
        try:
            schema = json.loads(text)
        except ValueError as error:
            raise UserError(f"the schema is not JSON: {error}", fix="repair it in the box of the form") from None
        return {"type": kind, "json_schema": {"name": "answer", "schema": schema}}
    contents = {"json_object": {}, "choice": {"choice": [line for line in text.splitlines() if line]}}
    return {"type": kind, **contents.get(kind, {kind: text})}


def _seed(text: str) -> int:
    try:
        return int(text) if text.strip() else secrets.randbelow(1_000_000)  # short enough to be written down
    except ValueError:
        raise UserError(f"the seed '{text}' is not a whole number", fix="clear it for a new one each time") from None


def as_curl(url: str, path: str, body: dict[str, Any]) -> str:
    """Return a request as a command for a terminal."""
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"curl {url}{path} -H 'Content-Type: application/json' \\\n  -d {data}"


def as_python(url: str, path: str, body: dict[str, Any]) -> str:
    """Return a request as a few lines of Python with OpenAI's client."""
    call = "client.chat.completions.create" if "chat" in path else "client.completions.create"
    own = ("top_k", "min_p", "repetition_penalty", "thinking")
    lines = [f"    {name}={value!r}," for name, value in body.items() if name not in own]
    extra = {name: value for name, value in body.items() if name in own}
    lines += [f"    extra_body={extra!r},"] if extra else []
    head = f'from openai import OpenAI\n\nclient = OpenAI(base_url="{url}/v1", api_key="none")'
    return "\n".join([head, f"answer = {call}(", *lines, ")", "print(answer.choices[0])"])


def controls(service: Service, max_tokens: int) -> list[gr.components.Component]:
    """Return the sampling controls in the order of `NAMES`."""
    given = service.engine.params()
    shown = [
        gr.Slider(1, service.context, max_tokens, step=1, label="New tokens, at most"),
        gr.Slider(
            0,
            2,
            START_TEMPERATURE,
            step=0.05,
            label="Temperature",
            info="0 takes the likeliest",
        ),
        gr.Slider(0.01, 1, given.top_p, step=0.01, label="Top-p"),
    ]
    with gr.Accordion("More", open=False):
        hidden = [
            gr.Slider(0, 200, given.top_k, step=1, label="Top-k", info="0 is off"),
            gr.Slider(0, 1, given.min_p, step=0.01, label="Min-p"),
            gr.Slider(0.5, 2, given.repetition_penalty, step=0.05, label="Repetition penalty"),
            gr.Slider(-2, 2, 0, step=0.1, label="Presence penalty"),
            gr.Slider(-2, 2, 0, step=0.1, label="Frequency penalty"),
        ]
    tail = [
        gr.Textbox("", label="Seed", lines=1, max_lines=1, placeholder="a new one each time"),
        gr.Textbox("", label="Stop at", lines=1, max_lines=4, placeholder="one on a line, \\n for a line end"),
    ]
    with gr.Accordion("Form of the answer", open=False):
        form = [
            gr.Dropdown(list(FORMS), value=FREE, label="Form"),
            gr.Textbox("", label="Schema, expression, choices or grammar", lines=3, max_lines=12),
        ]
    return [*shown, *hidden, *tail, *form]
