"""A tiktoken rank file (base64 bytes, space, rank; one a line) to a byte-level BPE with the same ids.

The pair that makes an entry is found by joining the entry's own bytes with lower ranks only, as tiktoken itself would.
"""

import base64
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from caslon.errors import UserError
from caslon.tokenizer import special
from caslon.tokenizer.examine import HARD_TEXTS, random_texts
from caslon.tokenizer.import_table import byte_level_bpe, imported, refuse_other_ids
from caslon.tokenizer.patterns import LLAMA3
from caslon.tokenizer.ranks import GPT2_PATTERN
from caslon.tokenizer.tokenizer import Tokenizer

_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K_PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _ENDINGS,
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _ENDINGS,
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
# cl100k's pattern is the one Llama 3 took over.
PATTERNS = {"gpt2": GPT2_PATTERN, "cl100k": LLAMA3, "o200k": O200K_PATTERN}
KNOWN = {  # published tables: pattern and special tokens (tiktoken_ext/openai_public.py)
    "gpt2": ("gpt2", {"<|endoftext|>": 50256}),
    "r50k_base": ("gpt2", {"<|endoftext|>": 50256}),
    "p50k_base": ("gpt2", {"<|endoftext|>": 50256}),
    "cl100k_base": (
        "cl100k",
        {
            "<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": ("o200k", {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}),
}  # fmt: skip


def from_tiktoken(path: Path, table: str, pattern: str = "") -> Tokenizer:
    """Return the tokenizer of a rank file; `UserError` when it is damaged or nothing says how it cuts text."""
    known_pattern, special_ids = KNOWN.get(table, ("", {}))
    chosen = pattern or known_pattern
    if chosen not in PATTERNS:
        raise UserError(
            f"how the table '{table}' cuts text is not in its file",
            where=str(path),
            fix=f"name the table ({', '.join(KNOWN)}) with --name, or the pattern ({', '.join(PATTERNS)}) with --pattern",
        )
    ranks = read_ranks(path)
    symbol_of = {byte: symbol for symbol, byte in special.byte_symbols().items()}

    def spelled(data: bytes) -> str:
        return "".join(symbol_of[byte] for byte in data)

    parts = {data: _parts(data, ranks) for data in ranks if len(data) > 1}
    pairs = sorted((data for data, found in parts.items() if len(found) == 2), key=ranks.__getitem__)
    parsed = byte_level_bpe(
        {spelled(data): rank for data, rank in sorted(ranks.items(), key=lambda item: item[1])} | special_ids,
        [[spelled(one), spelled(other)] for one, other in (parts[data] for data in pairs)],
        special_ids,
        pattern="" if chosen == "gpt2" else PATTERNS[chosen],
        ignore_merges=True,
    )
    end = "<|endoftext|>" if "<|endoftext|>" in special_ids else None
    config = {"bos_token": end, "eos_token": end} if end else {}
    tokenizer = imported(parsed, config, table=table, format="tiktoken", files=[path])
    _compare(tokenizer, PATTERNS[chosen], ranks)
    return tokenizer


def read_ranks(path: Path) -> dict[bytes, int]:
    """Return the entries of a rank file; `UserError` names the line that is wrong."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line:
            continue
        try:
            data, rank = line.split()
            ranks[base64.b64decode(data, validate=True)] = int(rank)
        except ValueError as error:
            raise UserError(f"not a tiktoken rank file: {error}", where=f"{path}, line {number}") from error
    missing = [byte for byte in range(special.BYTE_COUNT) if bytes([byte]) not in ranks]
    if missing or len(set(ranks.values())) != len(ranks):
        what = f"byte {missing[0]} has no rank" if missing else "two entries have one rank"
        raise UserError(f"not a whole tiktoken rank file: {what}", where=str(path))
    return ranks


def _parts(data: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Return what the bytes of an entry are before its own merge: two parts, or more for one that merges never make."""
    parts = [data[at : at + 1] for at in range(len(data))]
    own = ranks[data]
    while len(parts) > 2:
        joined = [ranks.get(one + other, own) for one, other in pairwise(parts)]
        lowest = min(joined)
        if lowest >= own:
            break
        at = joined.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _compare(tokenizer: Tokenizer, pattern: str, ranks: Mapping[bytes, int]) -> None:
    try:
        import tiktoken
    except ModuleNotFoundError:
        return
    theirs = tiktoken.Encoding("table", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={})
    refuse_other_ids(tokenizer, theirs.encode_ordinary, "tiktoken", [*HARD_TEXTS, *random_texts(0)])
