"""A form an answer must have, turned into masks over the vocabulary before each token is chosen, by llguidance.

A token is allowed when its bytes may follow what is written; a special token never stands for text; the end of the answer
is allowed only where the form may end. So even an untrained model writes what was asked for.
Source: https://github.com/guidance-ai/llguidance (Earley parsing over derivatives of regular expressions).
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import llguidance
import numpy as np
import torch
from torch import Tensor

from caslon.engine.form import AnswerForm, InvalidSchema
from caslon.tokenizer.tokenizer import Tokenizer

MAX_CACHED = 128
# Between the parts of JSON. Unbounded, a model that is unsure writes spaces for ever.
WHITESPACE = r"[\x20\n\t]{1,12}"

_log = logging.getLogger(__name__)


class GrammarConstraint:
    """How far one answer has come in its form. Not thread-safe: whoever steps the engine owns it."""

    def __init__(self, matcher: llguidance.LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    @property
    def may_end(self) -> bool:
        """Whether what is written is a whole answer."""
        return self._matcher.is_accepting()

    @property
    def is_over(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._matcher.is_stopped()

    def mask(self, logits: Tensor) -> None:
        """Set the logits [V] of all tokens that may not come next to minus infinity, in place."""
        if self._matcher.is_error():  # the parser's own limits: this answer ends, the others go on
            _log.warning("a grammar gave up: %s", self._matcher.get_error())
            logits.fill_(-torch.inf)
            return
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        logits.masked_fill_(~torch.from_numpy(allowed).to(logits.device), -torch.inf)

    def advance(self, token: int) -> None:
        """Take the token that came."""
        self._matcher.consume_token(token)

    def rollback(self, tokens: int) -> None:
        """Forget the last so many tokens that came."""
        self._matcher.rollback(tokens)


class Grammars:
    """The forms compiled for one tokenizer, the last 128 of them kept. Safe to use from many threads."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._end_ids = sorted(end_ids)
        self._compiled: OrderedDict[AnswerForm, llguidance.LLMatcher] = OrderedDict()
        self._vocabulary: llguidance.LLTokenizer | None = None
        self._lock = threading.Lock()

    def constraint(self, form: AnswerForm) -> GrammarConstraint:
        """Return the constraint of a new answer; `InvalidSchema` with the library's message for a form it cannot follow."""
        with self._lock:
            fresh = self._compiled.get(form)
            if fresh is None:
                fresh = self._compile(form)
                self._compiled[form] = fresh
                if len(self._compiled) > MAX_CACHED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(form)
            return GrammarConstraint(fresh.deep_copy(), self._tokenizer.vocab_size)

    def _compile(self, form: AnswerForm) -> llguidance.LLMatcher:
        if self._vocabulary is None:  # takes a moment for a large vocabulary; most engines never need it
            self._vocabulary = _library_tokenizer(self._tokenizer, self._end_ids)
        # The limits are the library's: they bound the time to about 20 ms of regular expressions and half a million symbols.
        matcher = llguidance.LLMatcher(self._vocabulary, _source(form), log_level=0)
        if matcher.is_error():
            raise _said(matcher.get_error().strip(), form.kind)
        return matcher


def _said(message: str, kind: str) -> InvalidSchema:
    if "coerce_one_of" in message:
        message = "an answer could fit more than one of its parts: 'oneOf' cannot be kept to"
        return InvalidSchema(message, fix="use 'anyOf', or tell the parts apart by their types or a constant")
    return InvalidSchema(message, fix=_FIXES[kind])


_FIXES = {
    "json_schema": "use the keywords the guide of structured output lists",
    "regex": "use Rust's syntax: no look-around, no back-references",
    "lark": "see the guide of structured output for the syntax",
    "gbnf": "write it as a Lark grammar",
}


def _source(form: AnswerForm) -> str:
    """Return a form as the library takes it."""
    if form.kind == "json_schema":
        options: Any = {"whitespace_pattern": WHITESPACE}
        return llguidance.LLMatcher.grammar_from_json_schema(form.text, overrides=options)
    if form.kind == "regex":
        return llguidance.LLMatcher.grammar_from_regex(form.text)
    return llguidance.LLMatcher.grammar_from_lark(_as_lark(form.text) if form.kind == "gbnf" else form.text)


def _as_lark(text: str) -> str:
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return gbnf_to_lark(text)
    except Exception as error:  # the translator raises bare exceptions of several kinds
        raise InvalidSchema(f"the GBNF grammar cannot be translated: {error}", fix=_FIXES["gbnf"]) from error


def _library_tokenizer(tokenizer: Tokenizer, end_ids: list[int]) -> llguidance.LLTokenizer:
    wrapper = llguidance.TokenizerWrapper(_Vocabulary(tokenizer, end_ids))
    return llguidance.LLTokenizer(wrapper, eos_token=end_ids)


class _Vocabulary:
    """A tokenizer with the attributes the library asks for."""

    def __init__(self, tokenizer: Tokenizer, end_ids: list[int]) -> None:
        self.eos_token_id = end_ids[0]
        self.bos_token_id = None
        self.tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(tokenizer.special_ids)
        self._tokenizer = tokenizer

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode())
