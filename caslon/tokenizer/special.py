"""The special tokens of caslon's own tokenizers, in the order of their ids.

Ids 0-31 are special, the 256 bytes follow, then the learned entries. The names are the only thing code may rely on: ids are
always looked up, so that folders made elsewhere work too.
"""

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
RESERVED_TOKENS = tuple(f"<|reserved_{number}|>" for number in range(15))
SPECIAL_TOKENS = CONTROL_TOKENS + CHAT_TOKENS + RESERVED_TOKENS

BYTE_COUNT = 256
LEAST_VOCAB_SIZE = len(SPECIAL_TOKENS) + BYTE_COUNT

# Tokens that close a turn in the templates of other families: ChatML, Llama 3, Gemma, Phi-3, Harmony.
END_OF_TURN_SPELLINGS = (END_OF_TURN, "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|eot|>", "<|return|>")
# Tokens that close a text, for folders whose `eos_token` is the end of a turn.
END_OF_TEXT_SPELLINGS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>")


def byte_symbols() -> dict[str, int]:
    """Return the byte each symbol of a byte-level vocabulary stands for (GPT-2's `bytes_to_unicode`, turned round)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(BYTE_COUNT) if byte not in set(shown)]
    symbols = {chr(byte): byte for byte in shown}
    return symbols | {chr(BYTE_COUNT + place): byte for place, byte in enumerate(hidden)}
