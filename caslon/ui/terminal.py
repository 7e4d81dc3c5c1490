"""Talks to a model in the terminal: a conversation that streams, and obeys commands.

The model is a folder, loaded into this process, or the URL of a server, asked over HTTP; only the first needs torch.
"""

import contextlib
import json as json_format
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from caslon.client import Client
from caslon.errors import CaslonError, UserError
from caslon.settings import nearest
from caslon.ui.fields import FIELDS, read_value

if TYPE_CHECKING:
    from caslon.engine.engine import Engine
    from caslon.engine.request import Completion

Message = dict[str, str]

HELP = """\
/retry                 ask the last question again
/undo                  forget the last question and its answer
/system TEXT           tell the model how to behave; alone: forget it
/set NAME=VALUE        change how it answers, as in /set temperature=0.3; alone: show what is set
/save FILE             write the conversation as JSON
/help                  this text
/quit                  leave (Ctrl-D does too)
Ctrl-C                 stop the answer, keep the conversation"""


@dataclass
class Written:
    """What was written and why it ended; filled while it is streamed."""

    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    completion: "Completion | None" = None  # from a model in this process


class Model(Protocol):
    """What answers: an engine in this process or a server."""

    name: str

    def chat(
        self, messages: Sequence[Message], params: Mapping[str, Any], written: Written
    ) -> Generator[str, None, None]:
        """Yield the answer to a conversation piece by piece; closing the iterator stops the work."""
        ...

    def complete(self, prompt: str, params: Mapping[str, Any], written: Written) -> Generator[str, None, None]:
        """Yield the continuation of a prompt piece by piece; closing the iterator stops the work."""
        ...


class LocalModel:
    """A model folder, loaded into this process."""

    def __init__(self, engine: "Engine", name: str) -> None:
        self.engine = engine
        self.name = name

    def chat(
        self, messages: Sequence[Message], params: Mapping[str, Any], written: Written
    ) -> Generator[str, None, None]:
        """Yield the answer to a conversation; without max_tokens it may fill the context."""
        if self.engine.tokenizer.chat_template is None:
            raise UserError("this model has no chat template", fix="use: caslon generate MODEL --prompt TEXT")
        ids = self.engine.tokenizer.encode_chat(messages, add_generation_prompt=True).ids
        rest = max(1, self.engine.model_context - len(ids))
        return self._written({"max_tokens": rest, **params}, ids, written)

    def complete(self, prompt: str, params: Mapping[str, Any], written: Written) -> Generator[str, None, None]:
        """Yield the continuation of a prompt."""
        special = params.get("add_special_tokens")
        return self._written(params, self.prompt_ids(prompt, add_special_tokens=special), written)

    def prompt_ids(self, prompt: str, *, add_special_tokens: bool | None = None) -> list[int]:
        """Return the ids of a prompt. No text at all is the start of a document: the end mark of the one before."""
        ids = self.engine.prompt_ids(prompt, add_special_tokens=add_special_tokens)
        return ids or [self.engine.tokenizer.end_of_text_id]

    def _written(self, params: Mapping[str, Any], ids: Sequence[int], written: Written) -> Generator[str, None, None]:
        chosen = self.engine.params(**params)
        if chosen.n > 1 or chosen.best_of:
            raise UserError("one answer at a time is written here", where="n", fix="leave n and best_of out")
        handle = self.engine.submit(ids, chosen)
        try:
            for piece in handle:
                written.text += piece.text
                if piece.text:
                    yield piece.text
            completion = handle.result()
            written.completion = completion
            written.finish_reason = completion.finish_reason
            written.prompt_tokens = completion.prompt_tokens
            written.completion_tokens = len(completion.ids)
        finally:
            handle.cancel()


class RemoteModel:
    """A model behind an OpenAI-compatible server."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name

    def chat(
        self, messages: Sequence[Message], params: Mapping[str, Any], written: Written
    ) -> Generator[str, None, None]:
        """Yield the answer to a conversation."""
        chunks = self.client.stream_chat(self.name, messages, stream_options={"include_usage": True}, **params)
        return self._written(chunks, lambda choice: choice["delta"].get("content") or "", written)

    def complete(self, prompt: str, params: Mapping[str, Any], written: Written) -> Generator[str, None, None]:
        """Yield the continuation of a prompt."""
        chunks = self.client.stream_completion(self.name, prompt, stream_options={"include_usage": True}, **params)
        return self._written(chunks, lambda choice: choice["text"], written)

    def _written(
        self, chunks: Iterator[dict[str, Any]], text_of: Callable[[Mapping[str, Any]], str], written: Written
    ) -> Generator[str, None, None]:
        for chunk in chunks:
            if usage := chunk.get("usage"):
                written.prompt_tokens = usage["prompt_tokens"]
                written.completion_tokens = usage["completion_tokens"]
            for choice in chunk["choices"]:
                written.finish_reason = choice["finish_reason"] or written.finish_reason
                if text := text_of(choice):
                    written.text += text
                    yield text


@contextlib.contextmanager
def open_model(
    model_or_url: str,
    *,
    api_key: str | None = None,
    model_name: str | None = None,
    engine: Mapping[str, Any] | None = None,
) -> Iterator[Model]:
    """Give the model at a folder or URL while the block runs. `engine` are settings for a folder; a server has its own."""
    if model_or_url.startswith(("http://", "https://")):
        with Client(model_or_url, api_key=api_key) as client:
            yield RemoteModel(client, model_name or client.only_model())
        return
    from caslon.engine.engine import Engine  # torch takes seconds to import
    from caslon.engine.settings import EngineSettings
    from caslon.settings import checked

    folder = Path(model_or_url).resolve()
    loaded = Engine.load(folder, checked(EngineSettings, **(engine or {})))
    try:
        # Every stage's folder is called "model": the stage's own name tells more.
        yield LocalModel(loaded, folder.parent.name if folder.name == "model" else folder.name)
    finally:
        loaded.close()


@dataclass
class Conversation:
    """The turns so far and how the next answer is sampled."""

    params: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    turns: list[Message] = field(default_factory=list)

    def messages(self) -> list[Message]:
        """Return what the model is sent."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return head + self.turns

    def ask(self, text: str) -> None:
        """Add a question."""
        self.turns.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        """Add the answer to the last question."""
        self.turns.append({"role": "assistant", "content": text})

    def take_back_answer(self) -> None:
        """Forget the last answer but not its question; `UserError` when nothing was asked."""
        if not self.turns:
            raise UserError("nothing was asked yet")
        if self.turns[-1]["role"] == "assistant":
            self.turns.pop()

    def undo(self) -> None:
        """Forget the last question and its answer; `UserError` when there is none."""
        self.take_back_answer()
        self.turns.pop()

    def set(self, assignment: str) -> None:
        """Change one parameter from `name=value`; `UserError` for a name or value that cannot be."""
        name, equals, value = (part.strip() for part in assignment.partition("="))
        if name not in FIELDS:
            guess = nearest(name, FIELDS)
            raise UserError(f"unknown parameter '{name}'", fix=f"did you mean '{guess}'?" if guess else _known())
        if not equals:
            raise UserError("a value is missing", fix=f"/set {name}=VALUE")
        self.params[name] = read_value(name, value)

    def save(self, path: Path) -> None:
        """Write the conversation as JSON; `UserError` when the file cannot be written."""
        content = {"messages": self.messages(), "params": self.params}
        try:
            path.write_text(json_format.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot save: {error.strerror}", where=str(path)) from None


def _known() -> str:
    return "known: " + ", ".join(FIELDS)


class Chat:
    """The loop: reads a line, obeys it or answers it, and survives every error."""

    def __init__(self, model: Model, conversation: Conversation, console: Console, read: Callable[[str], str]) -> None:
        self.model = model
        self.conversation = conversation
        self.console = console
        self.read = read
        self.commands: Mapping[str, Callable[[str], None]] = {
            "/retry": self._retry,
            "/undo": self._undo,
            "/system": self._system,
            "/set": self._set,
            "/save": self._save,
            "/help": lambda _: self._say(HELP),
        }

    def run(self) -> None:
        """Talk until /quit or the end of the input."""
        self._say(f"{self.model.name} · /help for help, /quit to leave")
        while True:
            try:
                line = self.read("\n> ").strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                self._say("\n/quit leaves")
                continue
            if line in ("/quit", "/exit"):
                return
            if line:
                self._obey(line)

    def _obey(self, line: str) -> None:
        try:
            if line.startswith("/"):
                self._command(line)
            else:
                self.conversation.ask(line)
                self._answer()
        except CaslonError as error:
            self._say(str(error), style="red")

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if name not in self.commands:
            guess = nearest(name, self.commands)
            raise UserError(f"unknown command {name}", fix=f"did you mean {guess}?" if guess else "/help shows them")
        self.commands[name](rest.strip())

    def _answer(self) -> None:
        written = Written()
        ended = False
        try:
            with contextlib.closing(
                self.model.chat(self.conversation.messages(), self.conversation.params, written)
            ) as pieces:
                for piece in pieces:
                    self._write(piece)
            ended = True
        except KeyboardInterrupt:
            self._write(" …")
        finally:
            if written.text or ended:
                self.conversation.answer(written.text)
            else:  # a question without an answer would confuse the next one
                self.conversation.turns.pop()
        self._write("\n")
        if written.finish_reason == "length":
            self._say("(cut off: max_tokens or the end of the context was reached)")

    def _retry(self, _: str) -> None:
        self.conversation.take_back_answer()
        self._answer()

    def _undo(self, _: str) -> None:
        self.conversation.undo()
        self._say("forgotten")

    def _system(self, text: str) -> None:
        self.conversation.system = text or None
        self._say("system message set" if text else "no system message")

    def _set(self, assignment: str) -> None:
        if assignment:
            self.conversation.set(assignment)
        shown = ", ".join(f"{name}={value}" for name, value in sorted(self.conversation.params.items()))
        self._say(shown or f"nothing is set; {_known()}")

    def _save(self, name: str) -> None:
        if not name:
            raise UserError("a file name is missing", fix="/save FILE")
        self.conversation.save(Path(name))
        self._say(f"saved to {name}")

    def _say(self, text: str, style: str = "dim") -> None:
        self.console.print(text, style=style, markup=False, highlight=False)

    def _write(self, text: str) -> None:
        # Not print(): it would wrap words at the width of each piece.
        self.console.out(text, end="", highlight=False)
        self.console.file.flush()


def chat(
    model_or_url: str,
    params: Mapping[str, Any] | None = None,
    *,
    system: str | None = None,
    api_key: str | None = None,
    model_name: str | None = None,
    engine: Mapping[str, Any] | None = None,
    console: Console | None = None,
    read: Callable[[str], str] = input,
) -> None:
    """Talk with a model until the user leaves. `params` are sampling parameters by name."""
    with open_model(model_or_url, api_key=api_key, model_name=model_name, engine=engine) as model:
        Chat(model, Conversation(dict(params or {}), system), console or Console(), read).run()
