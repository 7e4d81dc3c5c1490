"""The web page at `/`: a playground for completions, with the probability of every token, and a chat.

Gradio carries all its assets in its wheel; fonts are the system's, telemetry and run history are off, and a
content-security policy keeps the browser from asking any other host. The page asks the same service as the API does.
"""

import threading
import time
from collections.abc import Generator, Iterator
from html import escape
from importlib import resources
from queue import SimpleQueue
from typing import Any

import gradio as gr
from fastapi import FastAPI

from caslon.engine.request import Piece, SamplingParams
from caslon.errors import CaslonError
from caslon.server.chat_wire import ChatRequest
from caslon.server.conversation import prepared
from caslon.server.errors import Refused, refused_from
from caslon.server.forms import form_of
from caslon.server.sampling import sampling_params
from caslon.server.service import Answer, Service
from caslon.server.wire import CompletionRequest, checked
from caslon.ui.controls import Value, as_curl, as_python, controls, fields_of
from caslon.ui.theme import theme
from caslon.ui.tokens import TokenView, answer_box, conversation, facts_line, problem_line, side_by_side

ALTERNATIVES = 6  # shown for each token
REFRESH_SECONDS = 0.08  # a browser need not draw more often
MOST_AT_ONCE = 64
MOST_SIDE_BY_SIDE = 4
AS_IT_LIKES = "as the model likes"
EMPTY = '<span class="empty">The model’s text appears here. Point at a token to see its rivals.</span>'
LEGEND = '<div class="legend">sure <i></i> surprised</div>'
EXAMPLE = "def read_lines(path):\n"

Turns = list[dict[str, str]]


class RunningAnswers:
    """The answers each open page is waiting for, so that Stop and closing the page reach the engine."""

    def __init__(self) -> None:
        self._by_page: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()

    def start(self, page: str, answers: list[Answer]) -> None:
        """Note a page's answers; those it was still waiting for are stopped."""
        self.stop(page)
        with self._lock:
            self._by_page[page] = answers

    def is_busy(self, page: str) -> bool:
        """Return whether a page waits for an answer."""
        with self._lock:
            return any(not answer.ended for answer in self._by_page.get(page, []))

    def stop(self, page: str) -> None:
        """Stop a page's answers, if it waits for any."""
        with self._lock:
            answers = self._by_page.pop(page, [])
        for answer in answers:
            answer.cancel()


class Playground:
    """What happens when a button is pressed."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.running = RunningAnswers()

    def complete(
        self, request: gr.Request, prompt: str, answers: float, *values: Value
    ) -> Iterator[tuple[str, str, str, str, str]]:
        """Yield the growing completions, a line of facts, the request as code, and the prompt as the model saw it."""
        views = [TokenView(self.service.tokenizer, prompt) for _ in range(int(answers))]
        told = ("", "", "")
        try:
            body = {"model": self.service.model_name, "prompt": prompt, "n": len(views), **fields_of(values)}
            fields = checked(CompletionRequest, body)
            ids = self.service.text_ids(prompt)
            told = (*_as_code(request, "/v1/completions", body), self._seen(ids))
            params = sampling_params(self.service, fields, max_tokens=fields.max_tokens or 1, logprobs=ALTERNATIVES)
            form = form_of(fields)
            options = [{"constraint": self.service.engine.constraint(form)} if form else {} for _ in params]
            for facts in self._write(ids, params, options, request, views):
                yield side_by_side([view.html(live=not facts) for view in views]), facts, *told
        except (CaslonError, Refused) as error:
            yield side_by_side([view.html() for view in views]), problem_line(refused_from(error).message), *told

    def ask(self, request: gr.Request, text: str, turns: Turns) -> tuple[Any, ...]:
        """Move the question from its box into the conversation; it waits there while another is being answered."""
        if not text.strip() or self.running.is_busy(page_of(request)):
            return text, turns, conversation(turns), *_buttons(awake=False)
        turns = [*turns, {"role": "user", "content": text}]
        return "", turns, conversation(turns), *_buttons(awake=False)

    def answer(
        self, request: gr.Request, turns: Turns, system: str, thinking: str, *values: Value
    ) -> Iterator[tuple[Turns, str, str, str, str, str]]:
        """Yield the conversation with a growing answer, its picture, facts, the request as code, and the model's prompt."""
        told = ("", "", "")
        if self.running.is_busy(page_of(request)):
            yield (gr.skip(),) * 6
            return
        if not turns or turns[-1]["role"] != "user":
            yield turns, conversation(turns), "", *told
            return
        view = TokenView(self.service.tokenizer)
        head = [{"role": "system", "content": system}] if system.strip() else []
        try:
            body = {"model": self.service.model_name, "messages": [*head, *turns], **fields_of(values)}
            if thinking != AS_IT_LIKES:
                body["thinking"] = thinking
            ready = prepared(self.service, checked(ChatRequest, body))
            told = (*_as_code(request, "/v1/chat/completions", body), self._seen(list(ready.prompt)))
            for facts in self._write(list(ready.prompt), ready.params, ready.options, request, [view]):
                answered = [*turns, _said(view)]
                yield answered, conversation(answered, live=not facts), facts, *told
        except (CaslonError, Refused) as error:
            yield turns, conversation(turns), problem_line(refused_from(error).message), *told

    def retry(self, turns: Turns) -> tuple[Any, ...]:
        """Take the last answer back, so that its question is answered again."""
        kept = turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns
        return kept, conversation(kept), *_buttons(awake=False)

    def edit(self, turns: Turns) -> tuple[str, Turns, str]:
        """Take the last question back into its box, and its answer away."""
        places = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
        if not places:
            return "", turns, conversation(turns)
        kept = turns[: places[-1]]
        return turns[places[-1]]["content"], kept, conversation(kept)

    def delete(self, turns: Turns) -> tuple[Turns, str]:
        """Take the last question and its answer away."""
        _, kept, shown = self.edit(turns)
        return kept, shown

    def clear(self, request: gr.Request) -> tuple[Turns, str, str]:
        """Forget the conversation."""
        self.running.stop(page_of(request))
        return [], conversation([]), ""

    def stop(self, request: gr.Request) -> None:
        """Stop what this page waits for."""
        self.running.stop(page_of(request))

    def _seen(self, ids: list[int]) -> str:
        return self.service.tokenizer.decode(ids)

    def _write(
        self,
        ids: list[int],
        params: list[SamplingParams],
        options: list[dict[str, Any]],
        request: gr.Request,
        views: list[TokenView],
    ) -> Iterator[str]:
        """Let the engine write for who opened the page; yield an empty line at each refresh and the facts at the end."""
        assert request.request is not None  # only a call from Python has none
        with self.service.page_call(request.request.state.call) as service:
            began = time.perf_counter()
            pieces: SimpleQueue[tuple[int, Piece]] = SimpleQueue()
            put = lambda index, piece: pieces.put((index, piece))  # noqa: E731
            answers = service.submit([ids] * len(params), params, put, options)
            self.running.start(page_of(request), answers)
            first = yield from _gathered(pieces, views)
            yield _facts(answers, params, began, first or began)


def _gathered(pieces: "SimpleQueue[tuple[int, Piece]]", views: list[TokenView]) -> Generator[str, None, float | None]:
    """Show pieces until all answers have ended; return when the first token came."""
    first, drawn, open_ = None, time.perf_counter(), len(views)
    while open_:
        index, piece = pieces.get()
        views[index].add(piece)
        now = time.perf_counter()
        if first is None and piece.ids:
            first = now
        open_ -= piece.finish_reason is not None
        if now - drawn >= REFRESH_SECONDS:
            drawn = now
            yield ""
    return first


def _facts(answers: list[Answer], params: list[SamplingParams], began: float, first: float) -> str:
    completions = [answer.result() for answer in answers]
    written = sum(len(completion.ids) for completion in completions)
    seconds = time.perf_counter() - first
    speed = f"{(written - len(answers)) / seconds:.1f} tokens/s" if seconds > 0 and written > len(answers) else ""
    reasons = dict.fromkeys(REASONS.get(one.finish_reason, one.finish_reason) for one in completions)
    thought = sum(completion.thinking_tokens for completion in completions)
    facts = [
        f"{completions[0].prompt_tokens} + {written} tokens",
        f"{thought} of them thinking" if thought else "",
        f"first after {first - began:.2f} s",
        speed,
        ", ".join(reasons),
        f"seed {completions[0].seed}" if params[0].temperature > 0 else "greedy",
    ]
    return facts_line(fact for fact in facts if fact)


def _said(view: TokenView) -> dict[str, str]:
    thought = {"reasoning_content": view.thinking} if view.thinking else {}
    return {"role": "assistant", "content": view.text, **thought}


def _as_code(request: gr.Request, path: str, body: dict[str, Any]) -> tuple[str, str]:
    assert request.request is not None
    url = str(request.request.base_url).rstrip("/")
    return as_curl(url, path, body), as_python(url, path, body)


REASONS = {
    "stop": "ended by itself",
    "length": "reached the limit of new tokens",
    "abort": "stopped",
    "error": "the engine failed; see the server's log",
}


def page_of(request: gr.Request) -> str:
    """Return what tells one open page from another."""
    return str(request.session_hash)


def mount_page(app: FastAPI, service: Service) -> FastAPI:
    """Return the application with the page at `/`."""
    css = resources.files("caslon.ui").joinpath("playground.css").read_text(encoding="utf-8")
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        playground(service),
        path="/",
        theme=theme(),
        css=css,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        show_error=False,
    )
    return mounted


def playground(service: Service) -> gr.Blocks:
    """Return the page."""
    page = Playground(service)
    blocks: gr.Blocks = gr.Blocks(title=f"caslon · {service.model_name}", analytics_enabled=False)
    with blocks:
        gr.HTML(_masthead(service), padding=False)
        with gr.Tabs():
            with gr.Tab("Completion"):
                _completion_tab(page)
            if service.can_chat:
                with gr.Tab("Chat"):
                    _chat_tab(page)
        blocks.unload(page.stop)
    blocks.queue(default_concurrency_limit=MOST_AT_ONCE, api_open=False)
    return blocks


def _masthead(service: Service) -> str:
    return (
        f'<div class="masthead"><span class="name">caslon</span><span class="model">{escape(service.model_name)} · '
        f'{service.context:,} tokens</span><span class="note">What a model writes may be wrong.</span></div>'
    )


def _completion_tab(page: Playground) -> None:
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=360):
            prompt = gr.Textbox(EXAMPLE, label="Prompt", lines=3, max_lines=14, autofocus=True)
            with gr.Row():
                go = gr.Button("Generate", variant="primary", min_width=120)
                stop = gr.Button("Stop", min_width=80)
            output = gr.HTML(answer_box(EMPTY), padding=False)
            facts = gr.HTML(padding=False)
            gr.HTML(LEGEND, padding=False)
            told = _told()
        with gr.Column(scale=3, min_width=240):
            answers = gr.Slider(1, MOST_SIDE_BY_SIDE, 1, step=1, label="Answers side by side")
            chosen = controls(page.service, min(128, page.service.context))
    inputs = [prompt, answers, *chosen]
    gr.on([go.click, prompt.submit], page.complete, inputs, [output, facts, *told], show_progress="hidden")
    stop.click(page.stop, queue=False)


def _chat_tab(page: Playground) -> None:
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=360):
            turns = gr.State([])
            shown = gr.HTML(conversation([]), padding=False)
            text = gr.Textbox(label="Message", placeholder="Ask something", lines=1, max_lines=8)
            with gr.Row():
                send = gr.Button("Send", variant="primary", min_width=120)
                stop = gr.Button("Stop", min_width=80)
                retry = gr.Button("Retry", min_width=80)
                edit = gr.Button("Edit", min_width=80)
                delete = gr.Button("Delete", min_width=80)
                clear = gr.Button("Clear", min_width=80)
            facts = gr.HTML(padding=False)
            told = _told()
        with gr.Column(scale=3, min_width=240):
            system = gr.Textbox(label="System message", lines=2, max_lines=6)
            thinking = gr.Dropdown([AS_IT_LIKES, "off", "shown"], value=AS_IT_LIKES, label="Thinking")
            chosen = controls(page.service, min(256, page.service.context // 2))
    inputs = [turns, system, thinking, *chosen]
    outputs = [turns, shown, facts, *told]
    asking = [send, retry, edit, delete]  # asleep while the model answers
    asked = gr.on([send.click, text.submit], page.ask, [text, turns], [text, turns, shown, *asking], queue=False)
    again = retry.click(page.retry, turns, [turns, shown, *asking], queue=False)
    for begun in (asked, again):
        answered = begun.then(page.answer, inputs, outputs, show_progress="hidden")
        answered.then(lambda: _buttons(awake=True), None, asking, queue=False)
    stop.click(page.stop, queue=False)
    edit.click(page.edit, turns, [text, turns, shown], queue=False)
    delete.click(page.delete, turns, [turns, shown], queue=False)
    clear.click(page.clear, None, [turns, shown, facts], queue=False)


def _buttons(*, awake: bool) -> list[gr.Button]:
    return [gr.Button(interactive=awake)] * 4


def _told() -> list[gr.components.Component]:
    """Return the boxes that tell what was asked: the request as code and the prompt as the model saw it."""
    with gr.Accordion("This request as code, and the model's prompt", open=False):
        return [
            gr.Textbox(label=label, lines=2, max_lines=12, interactive=False, buttons=["copy"])
            for label in ("curl", "Python", "Prompt as the model saw it")
        ]
