"""Tools: which form a template writes calls in, the grammar that forces a call, and calls read back from what was written.

Every form is JSON with a name and arguments; they differ in what stands around it. The markers of our own template and of most
others are tokens, so the engine tells calls and text apart; a template without marker tokens is read as text.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caslon.engine.form import AnswerForm, lark_string
from caslon.engine.sections import Markers
from caslon.server.chat_wire import ChatRequest, NamedTool, Tool
from caslon.server.errors import invalid
from caslon.tokenizer.tokenizer import Tokenizer

MAX_CALLS = 8  # that a grammar lets a model make in one answer
WHITESPACE = {"whitespace_pattern": r"\x20"}  # as the templates write it


@dataclass(frozen=True)
class ToolFormat:
    """How a family of templates writes calls. `mark` is what tells the template; no `opening`: the call is the whole answer."""

    name: str
    mark: str
    opening: str
    closing: str
    arguments: str = "arguments"
    is_list: bool = False


FORMATS = (
    ToolFormat("caslon", "<|tool_call|>", "<|tool_call|>", "<|/tool_call|>"),
    ToolFormat("hermes", "<tool_call>", "<tool_call>", "</tool_call>"),  # Qwen, Hermes
    ToolFormat("mistral", "[TOOL_CALLS]", "[TOOL_CALLS]", "", is_list=True),
    ToolFormat("llama3", "<|python_tag|>", "", "", arguments="parameters"),
    ToolFormat("llama3", '"parameters"', "", "", arguments="parameters"),
)


def tool_format(tokenizer: Tokenizer) -> ToolFormat | None:
    """Return the form in which the chat template writes calls; None when it knows no tools."""
    template = tokenizer.chat_template or ""
    return next((one for one in FORMATS if one.mark in template), None) if "tools" in template else None


@dataclass(frozen=True)
class ToolUse:
    """The tools of one request: what may be called, and whether a call must come."""

    tools: Sequence[Tool]
    format: ToolFormat
    forced: bool
    parallel: bool
    markers: Markers | None  # None: calls are found in the text

    @staticmethod
    def of(fields: ChatRequest, tokenizer: Tokenizer) -> "ToolUse | None":
        """Return the tools a request offers; None when it offers none. `Refused` for what cannot be had."""
        choice = fields.tool_choice
        if not fields.tools:
            if choice not in (None, "none", "auto"):
                raise invalid("'tool_choice' needs 'tools'", "tool_choice")
            return None
        tools = list(fields.tools)
        names = [tool.function.name for tool in tools]
        if len(set(names)) < len(names):
            raise invalid("two tools have the same name", "tools")
        if isinstance(choice, NamedTool):
            tools = [tool for tool in tools if tool.function.name == choice.function.name]
            if not tools:
                message = f"there is no tool '{choice.function.name}'; the tools are {', '.join(names)}"
                raise invalid(message, "tool_choice.function.name")
        if choice == "none":
            return None
        found = tool_format(tokenizer)
        if found is None:
            raise invalid("the model's chat template has no place for tools", "tools", "unsupported_parameter")
        forced = choice == "required" or isinstance(choice, NamedTool)
        return ToolUse(tools, found, forced, fields.parallel_tool_calls is not False, _markers(found, tokenizer))

    @property
    def names(self) -> frozenset[str]:
        """The names that may be called."""
        return frozenset(tool.function.name for tool in self.tools)

    def grammar(self, answer: AnswerForm | None = None) -> AnswerForm | None:
        """Return the form that holds calls to the tools and, beside them, the text to `answer`.

        None where nothing has to be held: a foreign template's calls that need not come and have no strict tool.
        """
        strict = any(tool.function.strict for tool in self.tools)
        if not self.forced and not strict and self.format.name != "caslon" and answer is None:
            return None
        calls = self._calls()
        if self.forced:
            start = calls
        elif answer is None:
            start = f"TEXT {calls} | TEXT"
        else:
            start = f"{calls} | answer"
        rules = [f"start: {start}", *self._rules()]
        if answer is not None and not self.forced:
            if answer.kind != "json_schema":
                raise invalid("with 'tools' only JSON forms are offered", "response_format", "unsupported_parameter")
            rules.append(f"answer: %json {answer.text}")
        return AnswerForm("lark", "\n".join(rules))

    def _calls(self) -> str:
        many = f"{{1,{MAX_CALLS}}}" if self.parallel else ""
        return "list" if self.format.is_list else f"call{many}" if self.format.opening else "call"

    def _rules(self) -> Iterator[str]:
        yield r"TEXT: /(.|\n)*/"
        opening, closing = self._around()
        body = json.dumps(self._call_schema(), ensure_ascii=False)
        if self.format.is_list:
            yield f'list: {opening} "[" call ("," call){{0,{MAX_CALLS - 1 if self.parallel else 0}}} "]"'
            yield f"call: %json {body}"
        else:
            space = r" /\n?/ " if self.format.name == "hermes" else " "
            yield f"call: {opening}{space}body{space}{closing}{space if self.format.name == 'hermes' else ''}"
            yield f"body: %json {body}"

    def _around(self) -> tuple[str, str]:
        if self.markers is None:
            return tuple(lark_string(text) if text else "" for text in (self.format.opening, self.format.closing))  # type: ignore[return-value]
        closing = "" if self.markers.closing is None else f"<[{self.markers.closing}]>"
        return f"<[{self.markers.opening}]>", closing

    def _call_schema(self) -> dict[str, Any]:
        calls = [
            {
                "type": "object",
                "properties": {"name": {"const": tool.function.name}, self.format.arguments: self._arguments(tool)},
                "required": ["name", self.format.arguments],
                "additionalProperties": False,
            }
            for tool in self.tools
        ]
        schema: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
        return {"x-guidance": WHITESPACE, **schema}

    def _arguments(self, tool: Tool) -> Mapping[str, Any]:
        if not (self.forced or tool.function.strict):
            return {"type": "object"}
        return {"type": "object", **(tool.function.parameters or {"properties": {}, "additionalProperties": False})}


def _markers(found: ToolFormat, tokenizer: Tokenizer) -> Markers | None:
    if not found.opening or found.opening not in tokenizer:
        return None
    if found.closing and found.closing not in tokenizer:
        return None
    return Markers(tokenizer.id_of(found.opening), tokenizer.id_of(found.closing) if found.closing else None)
