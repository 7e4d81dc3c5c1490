import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from simulated_engine import ANSWER, SimulatedEngine

from caslon.errors import UserError
from caslon.ui.generation import Opened, generate
from caslon.ui.terminal import Chat, Conversation, LocalModel, Model, Written, open_model


class Typing:
    """Types lines as a user would; an exception in the list is raised in its place."""

    def __init__(self, *lines: str | type[BaseException]) -> None:
        self.lines = list(lines)

    def __call__(self, prompt: str) -> str:
        line = self.lines.pop(0) if self.lines else EOFError
        if isinstance(line, str):
            return line
        raise line


def talk(model: Model, *lines: str | type[BaseException], **params: object) -> tuple[str, Conversation]:
    out = io.StringIO()
    conversation = Conversation({"max_tokens": 10, **params})
    Chat(model, conversation, Console(file=out, width=200), Typing(*lines)).run()
    return out.getvalue(), conversation


@pytest.fixture
def local(engine: SimulatedEngine) -> Model:
    return LocalModel(engine, "fox")


@pytest.fixture(params=["local", "remote"])
def model(request: pytest.FixtureRequest, url: str, local: Model):
    if request.param == "local":
        yield local
        return
    with open_model(url) as remote:
        yield remote


def test_question_and_answer(model: Model) -> None:
    text, conversation = talk(model, "hello", "/quit")
    assert "The quick brown fox" in text
    assert [turn["role"] for turn in conversation.turns] == ["user", "assistant"]
    assert ANSWER.startswith(conversation.turns[1]["content"])


def test_the_model_sees_the_system_message_and_all_turns(local: Model, engine: SimulatedEngine) -> None:
    talk(local, "/system Be brief.", "one", "two")
    prompts = [engine.tokenizer.decode(ids) for ids, _ in engine.seen]
    assert "Be brief." in prompts[0]
    assert "one" in prompts[1]
    assert "The quick" in prompts[1]
    assert prompts[1].index("one") < prompts[1].index("two")


def test_retry_and_undo(model: Model, engine: SimulatedEngine) -> None:
    _, conversation = talk(model, "one", "/retry", "two", "/undo")
    assert [turn["content"] for turn in conversation.turns][:1] == ["one"]
    assert len(conversation.turns) == 2
    assert len(engine.seen) == 3
    assert engine.seen[0][0] == engine.seen[1][0]


def test_set_changes_the_next_answer(local: Model, engine: SimulatedEngine) -> None:
    text, _ = talk(local, "/set temperature=0.3", "/set seed = 4", "hello", "/set")
    assert engine.seen[0][1].temperature == 0.3
    assert "[4]" in text
    assert "max_tokens=10, seed=4, temperature=0.3" in text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/set temprature=1", "did you mean 'temperature'"),
        ("/set temperature=warm", "not a number"),
        ("/set temperature", "/set temperature=VALUE"),
        ("/sav x", "did you mean /save"),
        ("/retry", "nothing was asked"),
        ("/undo", "nothing was asked"),
        ("/save", "file name"),
        ("/save /no/such/folder/x.json", "cannot save"),
        ("/help", "Ctrl-C"),
    ],
)
def test_a_mistake_is_explained_and_the_loop_goes_on(local: Model, line: str, expected: str) -> None:
    text, conversation = talk(local, line, "hello")
    assert expected in text
    assert len(conversation.turns) == 2


def test_a_refused_question_is_forgotten(model: Model) -> None:
    text, conversation = talk(model, "word " * 300, "hello")
    assert "context" in text
    assert [turn["content"] for turn in conversation.turns][:1] == ["hello"]


def test_a_wrong_value_is_refused_and_can_be_mended(model: Model) -> None:
    text, conversation = talk(model, "/set top_p=7", "hello", "/set top_p=0.9", "hello")
    assert "top_p" in text
    assert len(conversation.turns) == 2


def test_save(local: Model, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    talk(local, "/system S", "grüße", f"/save {file}")
    saved = json.loads(file.read_text())
    assert [message["role"] for message in saved["messages"]] == ["system", "user", "assistant"]
    assert "grüße" in file.read_text()


class Interrupting:
    """A model whose user presses Ctrl-C after some pieces."""

    name = "interrupting"

    def __init__(self, inner: Model, pieces: int) -> None:
        self.inner = inner
        self.pieces = pieces

    def chat(self, messages, params, written: Written):
        pieces = self.inner.chat(messages, params, written)
        if self.pieces == 0:
            raise KeyboardInterrupt
        try:
            for number, piece in enumerate(pieces, start=1):
                yield piece
                if number == self.pieces:
                    self.pieces = -1
                    raise KeyboardInterrupt
        finally:
            pieces.close()

    complete: Callable


def test_ctrl_c_stops_the_answer_and_keeps_the_conversation(model: Model, engine: SimulatedEngine) -> None:
    engine.seconds_per_token = 0.005
    text, conversation = talk(Interrupting(model, 3), "hello", "more", max_tokens=60)
    assert [turn["role"] for turn in conversation.turns] == ["user", "assistant"] * 2
    assert len(conversation.turns[1]["content"]) < len(conversation.turns[3]["content"])
    assert "…" in text
    assert engine.finished[0] == "abort"


def test_ctrl_c_before_the_first_word_takes_the_question_back(local: Model) -> None:
    _, conversation = talk(Interrupting(local, 0), "hello")
    assert conversation.turns == []


def test_ctrl_c_at_the_prompt_says_how_to_leave(local: Model) -> None:
    text, conversation = talk(local, KeyboardInterrupt, "hello")
    assert "/quit leaves" in text
    assert len(conversation.turns) == 2


def test_generate_writes_only_the_answer_into_a_pipe(url: str) -> None:
    out = io.StringIO()
    generate(Opened(url), ["a prompt"], {"max_tokens": 8, "seed": 1}, console=Console(file=out))
    assert out.getvalue() == "[1] The quick brown\n"


def test_generate_json_is_one_record_a_line(url: str) -> None:
    out = io.StringIO()
    generate(Opened(url), ["a", "the fox"], {"max_tokens": 30}, json=True, console=Console(file=out, width=20))
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [record["prompt"] for record in records] == ["a", "the fox"]
    assert records[1]["prompt_tokens"] == 2
    assert records[1]["completion_tokens"] == 30
    assert records[1]["finish_reason"] == "length"


def test_generate_refuses_what_does_not_fit(url: str) -> None:
    with pytest.raises(UserError, match="context"):
        generate(Opened(url), ["z" * 500], {"max_tokens": 8}, console=Console(file=io.StringIO()))
