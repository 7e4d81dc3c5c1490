"""What a folder's `generation_config.json` asks for, turned into defaults of `SamplingParams`. Free of torch.

A key that would change the output and is not supported is an error that names it; notes and versions are left alone.
Nothing is taken from a library's own defaults.
"""

from collections.abc import Mapping
from typing import Any

from caslon.errors import UserError

SUPPORTED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram_size")

# the values at which a key changes nothing; anything else is refused
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0, 0.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1, 1.0),
    "typical_p": (None, 1, 1.0),
    "top_h": (None,),
    "epsilon_cutoff": (None, 0, 0.0),
    "eta_cutoff": (None, 0, 0.0),
    "guidance_scale": (None, 1, 1.0),
    "bad_words_ids": (None, []),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "forced_decoder_ids": (None, []),
    "sequence_bias": (None, {}, []),
    "exponential_decay_length_penalty": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "watermarking_config": (None,),
}


def sampling_defaults(generation_config: Mapping[str, Any], vocab_size: int | None = None) -> dict[str, Any]:
    """Return the sampling fields the folder sets; `do_sample: false` means greedy. `UserError` for what we cannot do.

    Suppressed ids that only pad the model's vocabulary, beyond the tokenizer's `vocab_size`, are never sampled here anyway.
    """
    suppressed = generation_config.get("suppress_tokens") or []
    if vocab_size is not None and all(id >= vocab_size for id in suppressed):
        generation_config = {**generation_config, "suppress_tokens": None}
    for key, neutral in NEUTRAL.items():
        if key in generation_config and generation_config[key] not in neutral:
            raise UserError(
                f"generation_config.json sets {key} = {generation_config[key]!r}, which this engine does not support",
                where="generation_config.json",
                fix=f"remove {key} from the file; answers will differ from programs that follow it",
            )
    found = {key: generation_config[key] for key in SUPPORTED if generation_config.get(key) is not None}
    if generation_config.get("do_sample") is False:
        found["temperature"] = 0.0
    return found


def stop_ids(generation_config: Mapping[str, Any]) -> tuple[int, ...]:
    """Return every id of `eos_token_id`, which may be one number or a list."""
    value = generation_config.get("eos_token_id")
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)
