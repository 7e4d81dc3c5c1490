"""One answer while it grows: from chosen tokens to streamed pieces and, once, a completion.

`Answer` is written by whoever steps the engine; `Handle` is what the caller of `Engine.submit` holds, in any thread.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

from caslon.engine.request import ANSWER, Completion, Piece, Section, Sequence, TokenLogprob
from caslon.engine.sampler import NO_ALLOWED_TOKEN, Choice
from caslon.engine.sections import NO_SECTIONS, THINKING, Sections, SectionStream
from caslon.tokenizer.tokenizer import Tokenizer

OnPiece = Callable[[Piece], None]

_log = logging.getLogger(__name__)


class Answer:
    """A sequence with its text. It ends exactly once: `completion` is set then, and `done` when all is tidied up."""

    def __init__(
        self, sequence: Sequence, tokenizer: Tokenizer, on_piece: OnPiece | None, sections: Sections = NO_SECTIONS
    ) -> None:
        self.sequence = sequence
        self.sequences = [sequence]
        self.completion: Completion | None = None
        self.done = threading.Event()
        self._stream = SectionStream(tokenizer, sequence.params, sections)
        self._on_piece = on_piece
        self._sent_tokens = 0
        self._last_text = ""

    def accept(self, choice: Choice, *, was_guessed: bool = False) -> None:
        """Add the chosen token; send what can be shown; end the answer where the token ends it."""
        sequence, params = self.sequence, self.sequence.params
        if choice.error is not None:
            complete = (
                choice.error == NO_ALLOWED_TOKEN and sequence.constraint is not None and sequence.constraint.may_end
            )
            self.end("stop") if complete else self.end("error", error=choice.error)
            return
        if was_guessed:
            sequence.guessed.append(sequence.output_tokens)
        sequence.append(choice.id)
        if sequence.first_token is None:
            sequence.first_token = time.perf_counter()
        if choice.logprob is not None:
            sequence.logprobs.append(choice.logprob)
        may_stop = sequence.output_tokens >= params.min_tokens
        if choice.id in sequence.stop_ids and may_stop:
            _, shown = self._stream.push(choice.id, may_stop=False) if params.include_stop else (ANSWER, "")
            self.end("stop", stop_reason=choice.id, shown=shown)
            return
        if sequence.constraint is not None:
            sequence.constraint.advance(choice.id)
        section, shown = self._stream.push(choice.id, may_stop=may_stop)
        if shown and section != self._stream.section:  # half a character before a marker
            self._send(shown, None, section)
            shown = ""
        if self._stream.stopped_by is not None:
            self.end("stop", stop_reason=self._stream.stopped_by, shown=shown)
        elif self._has_all_tokens():
            self.end("length", shown=shown)
        elif shown:
            self._send(shown, None, section)

    def _has_all_tokens(self) -> bool:
        sequence, params = self.sequence, self.sequence.params
        if params.thinking_budget is None:
            return sequence.output_tokens == params.max_tokens
        own = sequence.output_tokens - self._stream.thinking_tokens
        return own == params.max_tokens or sequence.output_tokens == params.total_tokens

    def end(
        self, reason: str, *, stop_reason: str | int | None = None, shown: str = "", error: str | None = None
    ) -> None:
        """Set the completion. The caller learns of it by `publish`, once the engine has freed what the answer held."""
        if self.completion is not None:
            return
        sequence = self.sequence
        if self._stream.stopped_by is None:
            shown += self._stream.finish()
        scored = sequence.params.prompt_logprobs is not None
        self._last_text = shown
        self.completion = Completion(
            ids=tuple(sequence.ids[len(sequence.prompt) :]),
            text=self._stream.text(ANSWER.kind),
            finish_reason=reason,
            stop_reason=stop_reason,
            logprobs=tuple(sequence.logprobs),
            prompt_tokens=len(sequence.prompt),
            cached_tokens=sequence.cached_tokens,
            prompt_logprobs=(None, *sequence.prompt_logprobs) if scored else None,
            seed=sequence.seed,
            times=sequence.times(),
            error=error,
            guessed=tuple(sequence.guessed),
            thinking=self._stream.text(THINKING),
            thinking_tokens=self._stream.thinking_tokens,
            thinking_unclosed=self._stream.is_thinking,
            tool_calls=self._stream.tool_calls(),
        )

    def publish(self) -> None:
        """Send the last piece and wake those who wait for the result."""
        assert self.completion is not None
        self._send(self._last_text, self.completion.finish_reason, self._stream.section)
        self.done.set()

    def _send(self, text: str, finish_reason: str | None, section: Section) -> None:
        if self._on_piece is None:
            return
        sequence, start = self.sequence, self._sent_tokens
        self._sent_tokens = sequence.output_tokens
        ids = tuple(sequence.ids[len(sequence.prompt) + start :])
        try:
            self._on_piece(Piece(text, ids, tuple(sequence.logprobs[start:]), finish_reason, section))
        except Exception:  # the listener's fault must not stop the engine, which serves others too
            _log.exception("the listener of an answer failed; the answer is aborted")
            self._on_piece = None
            self.end("abort")


class Handle:
    """The caller's hold on a submitted request: iterate for pieces, `cancel`, or wait for the `result`."""

    def __init__(self, answer: Answer, pieces: "queue.SimpleQueue[Piece] | None", cancel: Callable[[], None]) -> None:
        self._answer = answer
        self._pieces = pieces
        self._cancel = cancel

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces as they come; the last one carries `finish_reason`. Can be gone through once."""
        assert self._pieces is not None, "the pieces go to the listener given to submit"
        while True:
            piece = self._pieces.get()
            yield piece
            if piece.finish_reason is not None:
                return

    def cancel(self) -> None:
        """Ask for the end; the blocks are free by the next step. Harmless when repeated or too late."""
        self._cancel()

    @property
    def is_done(self) -> bool:
        """Return whether the answer has ended."""
        return self._answer.done.is_set()

    def result(self, timeout_seconds: float | None = None) -> Completion:
        """Wait for the end and return the completion; `TimeoutError` when it takes longer than that."""
        if not self._answer.done.wait(timeout_seconds):
            raise TimeoutError(f"no answer within {timeout_seconds} s")
        completion = self._answer.completion
        assert completion is not None
        return completion


def scored_tokens(completion: Completion) -> list[TokenLogprob]:
    """Return the log-probabilities of the prompt's tokens after the first."""
    return [entry for entry in completion.prompt_logprobs or () if entry is not None]
