"""A smaller model that guesses what the served one will say, with a key-value cache of its own.

It keeps up with each sequence: what the served model refused is forgotten by counting its keys and values as not
computed. Its guess is always its likeliest token. Speculative decoding: arXiv:2211.17192, arXiv:2302.01318.
"""

from pathlib import Path

from caslon.engine.blocks import BlockPool
from caslon.engine.loading import load_decoder
from caslon.engine.request import SamplingParams, Sequence
from caslon.engine.runner import runner_for
from caslon.engine.scheduler import Chunk, StepPlan
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.decoder import Decoder
from caslon.model.folder import ModelFolder
from caslon.tokenizer.tokenizer import Tokenizer

DRAFT_TOKENS = 4


class DraftModel:
    """Drafts with a decoder. `blocks` is the size of its cache, of `settings.block_tokens` tokens each."""

    tokens = DRAFT_TOKENS

    def __init__(self, decoder: Decoder, settings: EngineSettings, blocks: int, vocab_size: int) -> None:
        self._runner = runner_for(decoder.eval(), settings, blocks, vocab_size)
        self._pool = BlockPool(blocks, settings.block_tokens, prefix_cache=False)
        self._context = decoder.config.max_position_embeddings
        self._step_tokens = settings.max_step_tokens
        self._mirrors: dict[Sequence, Sequence] = {}

    @staticmethod
    def load(folder: Path, settings: EngineSettings, blocks: int, tokenizer: Tokenizer) -> "DraftModel":
        """Return the drafter of a model folder; `UserError` where its tokenizer is another one than the served model's."""
        model = ModelFolder.open(folder)
        own = model.tokenizer()
        if own.digest != tokenizer.digest:
            raise UserError(
                f"the draft's tokenizer is {own.digest[:12]}, the model's is {tokenizer.digest[:12]}",
                where=str(folder),
                fix="draft with a model that was trained with the same tokenizer",
            )
        return DraftModel(load_decoder(model, settings), settings, blocks, tokenizer.vocab_size)

    def draft(self, sequences: list[Sequence]) -> list[tuple[int, ...]]:
        """Return for each sequence what the small model would say next; nothing while it still reads the prompt."""
        mirrors = {sequence: self._kept_up(sequence) for sequence in sequences}
        for _ in range(self.tokens):
            plan = self._plan(mirrors)
            if not plan:
                break
            output = self._runner.run(plan)
            for chunk in plan:
                chunk.sequence.computed = chunk.end
            for chunk, token in zip(output.choosing, output.next_logits.argmax(dim=-1).tolist(), strict=True):
                chunk.sequence.ids.append(token)
        return [tuple(mirror.ids[len(sequence.ids) :]) for sequence, mirror in mirrors.items()]

    def forget(self, sequence: Sequence) -> None:
        """Free the blocks kept for a sequence."""
        mirror = self._mirrors.pop(sequence, None)
        if mirror is not None:
            self._pool.release(mirror.blocks)

    def _kept_up(self, sequence: Sequence) -> Sequence:
        """Return the small model's own record of a sequence, brought to what the sequence really says."""
        mirror = self._mirrors.get(sequence)
        if mirror is None:
            mirror = Sequence(sequence.prompt, SamplingParams(temperature=0), frozenset(), 0)
            self._mirrors[sequence] = mirror
        same = len(sequence.prompt)
        while same < min(mirror.computed, len(sequence.ids)) and mirror.ids[same] == sequence.ids[same]:
            same += 1
        mirror.computed = min(mirror.computed, same, len(sequence.ids) - 1)
        mirror.ids = list(sequence.ids)
        return mirror

    def _plan(self, mirrors: dict[Sequence, Sequence]) -> StepPlan:
        """Return the next chunk of each record, as far as tokens and blocks suffice."""
        plan: StepPlan = []
        room = self._step_tokens
        for mirror in mirrors.values():
            tokens = min(mirror.remaining, room)
            if not tokens or len(mirror.ids) > self._context:
                continue
            missing = self._pool.needed(mirror.computed + tokens) - len(mirror.blocks)
            if missing > self._pool.free:
                continue
            mirror.blocks += self._pool.take(max(0, missing))
            plan.append(Chunk(mirror, mirror.computed, mirror.computed + tokens))
            room -= tokens
        return plan
