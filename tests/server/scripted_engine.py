"""An engine that says what it is told, special tokens included, through the real `Answer` and real constraints."""

import threading
from collections.abc import Sequence
from queue import SimpleQueue

from simulated_engine import SimulatedEngine

from caslon.engine.answer import Answer, Handle, OnPiece
from caslon.engine.form import AnswerForm
from caslon.engine.grammar import Grammars
from caslon.engine.request import Constraint, ContextLengthExceeded, Piece, SamplingParams, TokenLogprob
from caslon.engine.request import Sequence as Life
from caslon.engine.sampler import Choice
from caslon.engine.sections import NO_SECTIONS, Sections
from caslon.tokenizer.tokenizer import Tokenizer


class ScriptedEngine(SimulatedEngine):
    """Answers every prompt with `script`; the i-th of several answers with `script[i]` when it is a list."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.model_context = 4000
        self.script: str | list[str] = ""
        self.forms: list[AnswerForm] = []
        self.held: list[tuple[Constraint | None, Sections]] = []
        self.grammars = Grammars(tokenizer, tokenizer.stop_ids)
        self.end_ids = frozenset(tokenizer.stop_ids)

    def check(self, prompt_ids: Sequence[int], params: SamplingParams) -> None:
        if len(prompt_ids) + params.total_tokens > self.model_context:
            raise ContextLengthExceeded(len(prompt_ids), params.total_tokens, self.model_context)

    def constraint(self, form: AnswerForm) -> Constraint:
        self.forms.append(form)
        return self.grammars.constraint(form)

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        on_piece: OnPiece | None = None,
        *,
        constraint: Constraint | None = None,
        sections: Sections = NO_SECTIONS,
    ) -> Handle:
        number = len(self.seen)
        self.seen.append((list(prompt_ids), params))
        self.held.append((constraint, sections))
        pieces: SimpleQueue[Piece] = SimpleQueue()
        life = Life(tuple(prompt_ids), params, frozenset(self.tokenizer.stop_ids), params.seed or 0)
        life.constraint = constraint
        answer = Answer(life, self.tokenizer, on_piece or pieces.put, sections)
        script = self.script if isinstance(self.script, str) else self.script[number % len(self.script)]
        threading.Thread(target=self._write, args=(answer, f"{script}<|endoftext|>"), daemon=True).start()
        return Handle(answer, None if on_piece else pieces, lambda: None)

    def _write(self, answer: Answer, script: str) -> None:
        for number, token in enumerate(self.tokenizer.encode(script, allow_special=True)):
            if answer.completion is None:
                answer.accept(Choice(token, TokenLogprob(token, -0.1 * number)))
        answer.publish()
