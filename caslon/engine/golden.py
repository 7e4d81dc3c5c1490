"""Golden prompts: what a model answered when it was made, replayed when it is loaded.

The file `golden.json` of a model folder is `[{"prompt_ids": [...], "ids": [...]}, ...]`, greedy continuations in
float32. They are recorded with the plain decoder, without cache or batch, so that replaying them tests the engine too.
In fewer bits a model may prefer other tokens; then the golden texts are read, not written, and the engine's probabilities
are held to those of the plain decoder with the same weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from caslon.compress.linear import QuantisedLinear, weights_written_out
from caslon.engine.request import SamplingParams
from caslon.errors import CaslonError, UserError
from caslon.model.decoder import Decoder

if TYPE_CHECKING:
    from caslon.engine.engine import Engine

GOLDEN_FILE = "golden.json"
NEW_TOKENS = 32
CLOSEST_CALL = (
    1e-4  # an answer is recorded up to the first token whose runner-up is this near: another CPU may swap them
)

# In fewer bits than float32: what may lie between the engine and the plain decoder, in nats. A favourite counts as another
# one where the plain decoder prefers its own by more than a near tie.
MEAN_BOUND, WORST_BOUND, NEAR_TIE, OTHERS_BOUND = 0.02, 0.2, 0.02, 0.01


def golden_prompts(decoder: Decoder, prompts: Sequence[Sequence[int]], new_tokens: int = NEW_TOKENS) -> list[Any]:
    """Return the content of `golden.json` for these prompts of token ids; one without a sure answer is left out."""
    answers = [(list(prompt), _continuation(decoder, prompt, new_tokens)) for prompt in prompts]
    return [{"prompt_ids": prompt, "ids": ids} for prompt, ids in answers if ids]


def write_golden_prompts(folder: Path, decoder: Decoder, prompts: Sequence[Sequence[int]]) -> None:
    """Write `golden.json` into a model folder."""
    text = json.dumps(golden_prompts(decoder, prompts), separators=(",", ":"))
    (folder / GOLDEN_FILE).write_text(text + "\n", encoding="utf-8")


def verify_golden_prompts(engine: "Engine", folder: Path) -> int:
    """Replay a folder's golden prompts and return how many; `CaslonError` at a difference.

    0 without a file. Prompts that a smaller context or cache than the model's own has no room for are not counted.
    """
    path = folder / GOLDEN_FILE
    if not path.is_file():
        return 0
    golden = [
        entry for entry in _read(path) if len(entry["prompt_ids"] + entry["ids"]) <= engine.largest_request_tokens
    ]
    if not engine.settings.kept.is_full:
        return 0  # a cache that forgets gives other answers, as was asked for
    if not (is_exact(engine.decoder) and engine.settings.cache_is_exact):
        _check_bounds(engine, [entry["prompt_ids"] + entry["ids"] for entry in golden], path)
        return len(golden)
    prompts = [entry["prompt_ids"] for entry in golden]
    params = [SamplingParams(max_tokens=len(entry["ids"]), temperature=0, ignore_eos=True) for entry in golden]
    for number, (entry, completion) in enumerate(zip(golden, engine.generate(prompts, params), strict=True), 1):
        for position, (expected, found) in enumerate(zip(entry["ids"], completion.ids, strict=True)):
            if expected != found:
                raise CaslonError(
                    f"golden prompt {number} of {len(golden)} is answered differently: token {position} is {found}, "
                    f"recorded was {expected}",
                    where=str(path),
                    fix="the weights, the tokenizer or this program changed; restore the folder or export it again",
                )
    return len(golden)


def is_exact(decoder: Decoder) -> bool:
    """Return whether a decoder computes as the recorder of golden prompts did: float32, no weight in fewer bits."""
    quantised = any(isinstance(part, QuantisedLinear) for part in decoder.modules())
    return decoder.model.embed_tokens.weight.dtype == torch.float32 and not quantised


def _check_bounds(engine: "Engine", texts: Sequence[list[int]], path: Path) -> None:
    """Raise `CaslonError` where the engine's probabilities of known texts are not the plain decoder's within the bounds."""
    params = SamplingParams(max_tokens=1, prompt_logprobs=1, temperature=0)
    found, expected = [], []
    for text, completion in zip(texts, engine.generate([text[:-1] for text in texts], params), strict=True):
        known = [entry for entry in completion.prompt_logprobs or () if entry is not None]
        reference = _plain_logprobs(engine.decoder, text[:-1], engine.tokenizer.vocab_size)
        found += [(entry.logprob, entry.top[0][0]) for entry in known]
        expected += [(float(row[token]), row) for row, token in zip(reference, text[1:-1], strict=False)]
    differences = torch.tensor([abs(ours[0] - theirs[0]) for ours, theirs in zip(found, expected, strict=True)])
    others = sum(float(row.max() - row[best]) > NEAR_TIE for (_, best), (_, row) in zip(found, expected, strict=True))
    mean, worst = float(differences.mean()), float(differences.quantile(0.999))
    if not (mean <= MEAN_BOUND and worst <= WORST_BOUND and others <= OTHERS_BOUND * len(differences)):
        raise CaslonError(
            f"the golden texts have other probabilities than the plain decoder gives them: {mean:.3f} nats a token on average, "
            f"{worst:.3f} at worst, another favourite at {others} of {len(differences)} places",
            where=str(path),
            fix="choose other weights or another dtype; if none works the folder is damaged",
        )


@torch.inference_mode()
def _plain_logprobs(decoder: Decoder, ids: Sequence[int], vocab_size: int) -> torch.Tensor:
    """Return the log-probabilities [T, V] after each token, without cache, batch or packed kernels."""
    with weights_written_out(decoder):
        logits = decoder.logits(decoder(torch.tensor([ids], device=decoder.device))[0])[:, :vocab_size]
    return logits.float().log_softmax(-1)


@torch.inference_mode()
def _continuation(decoder: Decoder, prompt: Sequence[int], new_tokens: int) -> list[int]:
    ids = list(prompt)
    for _ in range(min(new_tokens, decoder.config.max_position_embeddings - len(prompt))):
        hidden = decoder(torch.tensor([ids], device=decoder.device))[0, -1]
        best = decoder.logits(hidden).float().topk(2)
        if best.values[0] - best.values[1] < CLOSEST_CALL:
            break
        ids.append(int(best.indices[0]))
    return ids[len(prompt) :]


def _read(path: Path) -> list[dict[str, list[int]]]:
    try:
        golden = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(golden, list):
            raise TypeError(f"expected a list, found {type(golden).__name__}")
        return [{"prompt_ids": list(entry["prompt_ids"]), "ids": list(entry["ids"])} for entry in golden]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"not a list of golden prompts: {error!r}", where=str(path), fix="restore the file") from error
