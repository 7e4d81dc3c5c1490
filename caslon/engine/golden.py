"""Golden prompts: what a model answered when it was made, replayed when it is loaded.

The file `golden.json` of a model folder is `[{"prompt_ids": [...], "ids": [...]}, ...]`, greedy continuations in
float32. They are recorded with the plain decoder, without cache or batch, so that replaying them tests the engine too.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

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
