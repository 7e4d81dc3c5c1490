"""The special tokens of caslon's own tokenizers, in the order of their ids.

Ids 0-31 are special, span-corruption marks follow where they are asked for, then the 256 bytes, then the learned entries. The
names are the only thing code may rely on: ids are always looked up, so that folders made elsewhere work too.
"""

import re
from collections.abc import Sequence

from caslon.errors import UserError

START_OF_TEXT = "<|startoftext|>"
END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
UNKNOWN = "<|unk|>"
MASK = "<|mask|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
TOOL = "<|tool|>"
END_OF_TURN = "<|end|>"

CONTROL_TOKENS = (START_OF_TEXT, END_OF_TEXT, PAD, UNKNOWN, MASK)
CHAT_TOKENS = (
    SYSTEM, USER, ASSISTANT, TOOL, END_OF_TURN, "<|tool_call|>", "<|/tool_call|>", "<|think|>", "<|/think|>",
    "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
)  # fmt: skip
SENTINEL_BEGINS = "<|extra_"
RESERVED_TOKENS = tuple(f"<|reserved_{number}|>" for number in range(15))
SPECIAL_TOKENS = CONTROL_TOKENS + CHAT_TOKENS + RESERVED_TOKENS

OTHER_ROLES = {"bos_token": START_OF_TEXT, "pad_token": PAD, "unk_token": UNKNOWN, "mask_token": MASK}

UNTRAINED = ("bytes", "characters")  # vocabularies that follow from what they spell
BYTE_COUNT = 256
LEAST_VOCAB_SIZE = len(SPECIAL_TOKENS) + BYTE_COUNT
CONTINUATION = "\ue000"  # marks an entry inside a word of a word-piece model; private use, so no byte's symbol

# Tokens that close a turn in the templates of other families: ChatML, Llama 3, Gemma, Phi-3, Harmony.
END_OF_TURN_SPELLINGS = (END_OF_TURN, "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|eot|>", "<|return|>")
# Tokens that close a text, for folders whose `eos_token` is the end of a turn.
END_OF_TEXT_SPELLINGS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>")
# A letter or digit between the bars keeps every pattern from taking a special spelling in a text as one piece.
_SPELLING = re.compile(r"<\|[/_-]*[A-Za-z0-9][A-Za-z0-9/_-]*\|>")


def special_tokens(names: Sequence[str] = (), sentinels: int = 0) -> tuple[str, ...]:
    """Return all special tokens in the order of their ids: `names` take the reserved places, sentinels follow.

    `UserError` for a blank, repeated or ill-formed name, or more names than reserved places.
    """
    for name in names:
        if not _SPELLING.fullmatch(name):
            raise UserError(
                f"the special token {name!r} is blank or ill-formed", fix="write it as <|name|>, of letters and digits"
            )
        if names.count(name) > 1 or name in SPECIAL_TOKENS or name.startswith(SENTINEL_BEGINS):
            raise UserError(f"the special token {name!r} is repeated", fix="give every special token its own name")
    if len(names) > len(RESERVED_TOKENS):
        raise UserError(
            f"{len(names)} special tokens for {len(RESERVED_TOKENS)} reserved places", fix="leave some of them out"
        )
    return CONTROL_TOKENS + CHAT_TOKENS + tuple(names) + RESERVED_TOKENS[len(names) :] + sentinel_tokens(sentinels)


def untrained_special_tokens(names: Sequence[str] = (), sentinels: int = 0) -> tuple[str, ...]:
    """Return the special tokens behind bytes or characters: end of text, then `names`, then sentinels.

    `UserError` for a blank, repeated or ill-formed name.
    """
    special_tokens([name for name in names if name not in SPECIAL_TOKENS or name == END_OF_TEXT])
    if len(set(names)) < len(names):
        raise UserError("a special token is repeated", fix="give every special token its own name")
    return (END_OF_TEXT, *names, *sentinel_tokens(sentinels))


def sentinel_tokens(count: int) -> tuple[str, ...]:
    """Return the marks of span corruption in their order."""
    return tuple(f"{SENTINEL_BEGINS}{number}|>" for number in range(count))


def byte_symbols() -> dict[str, int]:
    """Return the byte each symbol of a byte-level vocabulary stands for (GPT-2's `bytes_to_unicode`, turned round)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(BYTE_COUNT) if byte not in set(shown)]
    symbols = {chr(byte): byte for byte in shown}
    return symbols | {chr(BYTE_COUNT + place): byte for place, byte in enumerate(hidden)}


def in_symbols(text: str) -> str:
    """Return a text in the symbols of its bytes, as a byte-level vocabulary spells it."""
    return "".join(_SYMBOLS[byte] for byte in text.encode())


_SYMBOLS = {byte: symbol for symbol, byte in byte_symbols().items()}
