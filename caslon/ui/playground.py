"""The web page at `/`: a playground for completions, with the probability of every token, and a chat.

Gradio carries all its assets in its wheel; fonts are the system's, telemetry and run history are off, and a
content-security policy keeps the browser from asking any other host. The page asks the same service as the API does.
"""

import secrets
import threading
import time
from collections.abc import Iterator
from html import escape
from importlib import resources
from queue import SimpleQueue
from typing import Any

import gradio as gr
from fastapi import FastAPI

from caslon.engine.request import Piece, SamplingParams
from caslon.errors import CaslonError, UserError
from caslon.server.errors import Refused, refused_from
from caslon.server.service import Answer, Service
from caslon.ui.tokens import TokenView, answer_box, conversation, facts_line, problem_line

ALTERNATIVES = 6  # shown for each token
REFRESH_SECONDS = 0.08  # a browser need not draw more often
MOST_AT_ONCE = 64
START_TEMPERATURE = 0.8  # a page is for trying things: always the likeliest token would show one answer only
EMPTY = '<span class="empty">The model’s text appears here. Point at a token to see its rivals.</span>'
LEGEND = '<div class="legend">sure <i></i> surprised</div>'
EXAMPLE = "def read_lines(path):\n"

# Printer's red-brown, from paper to ink.
RUST = gr.themes.Color(
    c50="#fdf5f0",
    c100="#fae6da",
    c200="#f3cbb3",
    c300="#e8a680",
    c400="#d97d4a",
    c500="#c2571a",
    c600="#b04c15",
    c700="#9a4413",
    c800="#7d370f",
    c900="#5f2b0d",
    c950="#3d1b08",
    name="rust",
)

Turns = list[dict[str, str]]
Values = tuple[float | str | None, ...]


class RunningAnswers:
    """The answer each open page is waiting for, so that Stop and closing the page reach the engine."""

    def __init__(self) -> None:
        self._by_page: dict[str, Answer] = {}
        self._lock = threading.Lock()

    def start(self, page: str, answer: Answer) -> None:
        """Note a page's answer; one it was still waiting for is stopped."""
        self.stop(page)
        with self._lock:
            self._by_page[page] = answer

    def stop(self, page: str) -> None:
        """Stop a page's answer, if it waits for one."""
        with self._lock:
            answer = self._by_page.pop(page, None)
        if answer:
            answer.cancel()


class Playground:
    """What happens when a button is pressed."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.running = RunningAnswers()

    def complete(self, request: gr.Request, prompt: str, *values: float | str | None) -> Iterator[tuple[str, str]]:
        """Yield the growing completion and a line of facts."""
        view = TokenView(self.service.tokenizer, prompt)
        try:
            params = self._params(values, logprobs=ALTERNATIVES)
            ids = self.service.text_ids(prompt)
            for facts in self._write(ids, params, request, view):
                yield view.html(live=not facts), facts
        except (CaslonError, Refused) as error:
            yield view.html(), problem_line(refused_from(error).message)

    def ask(self, text: str, turns: Turns) -> tuple[str, Turns, str]:
        """Move the question from its box into the conversation."""
        if text.strip():
            turns = [*turns, {"role": "user", "content": text}]
        return "", turns, conversation(turns)

    def answer(
        self, request: gr.Request, turns: Turns, system: str, *values: float | str | None
    ) -> Iterator[tuple[Turns, str, str]]:
        """Yield the conversation with a growing answer, its picture, and a line of facts."""
        if not turns or turns[-1]["role"] != "user":
            yield turns, conversation(turns), ""
            return
        view = TokenView(self.service.tokenizer)
        head = [{"role": "system", "content": system}] if system.strip() else []
        try:
            ids = self.service.chat_ids([*head, *turns])
            for facts in self._write(ids, self._params(values), request, view):
                answered = [*turns, {"role": "assistant", "content": view.text}]
                yield answered, conversation(answered, live=not facts), facts
        except (CaslonError, Refused) as error:
            yield turns, conversation(turns), problem_line(refused_from(error).message)

    def retry(self, turns: Turns) -> tuple[Turns, str]:
        """Take the last answer back, so that its question is answered again."""
        kept = turns[:-1] if turns and turns[-1]["role"] == "assistant" else turns
        return kept, conversation(kept)

    def clear(self, request: gr.Request) -> tuple[Turns, str, str]:
        """Forget the conversation."""
        self.running.stop(page_of(request))
        return [], conversation([]), ""

    def stop(self, request: gr.Request) -> None:
        """Stop what this page waits for."""
        self.running.stop(page_of(request))

    def _write(self, ids: list[int], params: SamplingParams, request: gr.Request, view: TokenView) -> Iterator[str]:
        """Let the engine write for who opened the page; yield an empty line at each refresh and the facts at the end."""
        assert request.request is not None  # only a call from Python has none
        with self.service.page_call(request.request.state.call) as service:
            yield from self._written(service, ids, params, page_of(request), view)

    def _written(
        self, service: Service, ids: list[int], params: SamplingParams, page: str, view: TokenView
    ) -> Iterator[str]:
        began = drawn = time.perf_counter()
        first = None
        pieces: SimpleQueue[Piece] = SimpleQueue()
        [answer] = service.submit([ids], [params], lambda _, piece: pieces.put(piece))
        self.running.start(page, answer)
        for piece in iter(pieces.get, None):
            view.add(piece)
            now = time.perf_counter()
            if first is None and piece.ids:
                first = now
            if now - drawn >= REFRESH_SECONDS:
                drawn = now
                yield ""
            if piece.finish_reason is not None:
                break
        completion = answer.result()
        seconds = time.perf_counter() - (first or began)
        speed = f"{(len(completion.ids) - 1) / seconds:.1f} tokens/s" if seconds > 0 and len(completion.ids) > 1 else ""
        facts = [
            f"{completion.prompt_tokens} + {len(completion.ids)} tokens",
            f"first after {(first or began) - began:.2f} s",
            speed,
            REASONS.get(completion.finish_reason, completion.finish_reason),
            f"seed {completion.seed}" if params.temperature > 0 else "greedy",
        ]
        yield facts_line(fact for fact in facts if fact)

    def _params(self, values: Values, *, logprobs: int | None = None) -> SamplingParams:
        names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty")
        chosen: dict[str, Any] = dict(zip((*names, "frequency_penalty", "seed", "stop"), values, strict=True))
        for name in ("max_tokens", "top_k"):
            chosen[name] = int(chosen[name])
        chosen["seed"] = _seed(str(chosen["seed"] or ""))
        # Written one on a line, with \n for a line end.
        stops = str(chosen["stop"] or "").splitlines()
        chosen["stop"] = tuple(stop.replace("\\n", "\n") for stop in stops if stop)
        return self.service.engine.params(**chosen, logprobs=logprobs)


def _seed(text: str) -> int:
    try:
        return int(text) if text.strip() else secrets.randbelow(1_000_000)  # short enough to be written down
    except ValueError:
        raise UserError(f"the seed '{text}' is not a whole number", fix="clear it for a new one each time") from None


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


def theme() -> gr.themes.Base:
    """Return a quiet theme in the system's own fonts."""
    return gr.themes.Base(
        primary_hue=RUST,
        neutral_hue="stone",
        radius_size="sm",
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    ).set(
        block_border_width="0px",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_padding="10px 0px",
        block_label_border_width="0px",
        input_background_fill="*background_fill_primary",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_text_color="#ffffff",
        button_large_text_weight="500",
        button_large_text_size="*text_md",
        button_large_padding="8px 18px",
        slider_color="*primary_600",
    )


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
        with gr.Column(scale=3, min_width=240):
            controls = _controls(page.service, min(128, page.service.context))
    gr.on([go.click, prompt.submit], page.complete, [prompt, *controls], [output, facts], show_progress="hidden")
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
                clear = gr.Button("Clear", min_width=80)
            facts = gr.HTML(padding=False)
        with gr.Column(scale=3, min_width=240):
            system = gr.Textbox(label="System message", lines=2, max_lines=6)
            controls = _controls(page.service, min(256, page.service.context // 2))
    inputs = [turns, system, *controls]
    outputs = [turns, shown, facts]
    asked = gr.on([send.click, text.submit], page.ask, [text, turns], [text, turns, shown], queue=False)
    asked.then(page.answer, inputs, outputs, show_progress="hidden")
    again = retry.click(page.retry, turns, [turns, shown], queue=False)
    again.then(page.answer, inputs, outputs, show_progress="hidden")
    stop.click(page.stop, queue=False)
    clear.click(page.clear, None, outputs, queue=False)


def _controls(service: Service, max_tokens: int) -> list[gr.components.Component]:
    """Return the sampling controls in the order `Playground._params` reads them."""
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
    return [*shown, *hidden, *tail]
