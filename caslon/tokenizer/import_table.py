"""Another maker's table of tokens to a tokenizer folder with the same ids. Reads local files only.

What cannot be carried over exactly is refused: where the maker's own library is installed, the ids of some thousand texts are
compared before the folder is written.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from caslon.errors import CaslonError, UserError
from caslon.folders import sha256_of_file
from caslon.tokenizer.tokenizer import TOKENIZER_FILE, Tokenizer

FORMATS = ("hf", "sentencepiece", "tiktoken")
GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))  # transformers' names, OpenAI's names


def import_table(path: Path, format: str, *, name: str = "", pattern: str = "") -> Tokenizer:
    """Return the tokenizer of a local table: `hf` a folder or tokenizer.json, `sentencepiece` a .model, `tiktoken` a rank file.

    `name` is the table's exact name (default: the file's), `pattern` how a tiktoken table of another name cuts text. `UserError`
    for files that are missing or damaged, `CaslonError` when the result does not give the ids of the maker's library.
    """
    if format not in FORMATS:
        raise UserError(f"unknown format '{format}'", fix=f"use one of {', '.join(FORMATS)}")
    if not path.exists():
        raise UserError(
            "no such file or folder", where=str(path), fix="import reads local files only; fetch the table first"
        )
    table = name or (path.stem if path.is_file() and path.name != TOKENIZER_FILE else path.resolve().name)
    if format == "hf":
        return _from_hf(path, table)
    if format == "tiktoken":
        from caslon.tokenizer.import_tiktoken import from_tiktoken

        return from_tiktoken(path, table, pattern)
    from caslon.tokenizer.import_sentencepiece import from_sentencepiece

    return from_sentencepiece(path, table)


def imported(
    parsed: Mapping[str, Any], config: Mapping[str, Any], *, table: str, format: str, files: Sequence[Path], **more: Any
) -> Tokenizer:
    """Return a tokenizer with a record of where it came from: the exact name of the table and the digests of its files."""
    text = json.dumps(parsed, ensure_ascii=False, indent=1) + "\n"
    tokenizer = Tokenizer(
        text, {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
    )
    sources = {file.name: sha256_of_file(file) for file in files}
    record = {
        "format": 1,
        "imported": {"format": format, "table": table, "files": sources},
        "vocab_size": tokenizer.vocab_size,
    }
    return Tokenizer(text, tokenizer.config, more.get("chat_template"), record)


def refuse_other_ids(
    tokenizer: Tokenizer, theirs: Callable[[str], list[int]], library: str, texts: Sequence[str]
) -> None:
    """Raise `CaslonError` for the first text that gets other ids than the maker's library gives."""
    for text in texts:
        ours, expected = tokenizer.encode(text), theirs(text)
        if ours != expected:
            place = next((at for at, (one, other) in enumerate(zip(ours, expected, strict=False)) if one != other), 0)
            raise CaslonError(
                f"this table cannot be carried over exactly: {text[:60]!r} gets {ours[place : place + 5]} from token {place} on, "
                f"{library} gives {expected[place : place + 5]}",
                fix="please report this table",
            )


def _from_hf(path: Path, table: str) -> Tokenizer:
    folder = path if path.is_dir() else path.parent
    if (folder / TOKENIZER_FILE).is_file():
        loaded = Tokenizer.load(folder)
        return imported(
            json.loads(loaded.tokenizer_json),
            loaded.config,
            table=table,
            format="hf",
            files=[folder / TOKENIZER_FILE],
            chat_template=loaded.chat_template,
        )
    for vocabulary, merges in GPT2_FILES:
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            return _from_gpt2_files(folder / vocabulary, folder / merges, table)
    names = " or ".join(f"{one} with {other}" for one, other in GPT2_FILES)
    raise UserError(f"no {TOKENIZER_FILE}, and no {names}", where=str(folder), fix="give the folder that holds them")


def _from_gpt2_files(vocabulary_file: Path, merges_file: Path, table: str) -> Tokenizer:
    try:
        vocabulary = json.loads(vocabulary_file.read_text(encoding="utf-8"))
        lines = merges_file.read_text(encoding="utf-8").split("\n")
        merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        parsed = byte_level_bpe(
            vocabulary, merges, {token: vocabulary[token] for token in _ENDS if token in vocabulary}
        )
        end = next(iter(_ENDS & vocabulary.keys()), None)
        config = {"bos_token": end, "eos_token": end} if end else {}
        return imported(parsed, config, table=table, format="hf", files=[vocabulary_file, merges_file])
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"the files cannot be read: {error}", where=str(vocabulary_file)) from error


_ENDS = {"<|endoftext|>"}


def byte_level_bpe(
    vocabulary: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    special: Mapping[str, int],
    *,
    pattern: str = "",
    ignore_merges: bool = False,
) -> dict[str, Any]:
    """Return the content of a tokenizer.json: byte-level BPE that cuts text by `pattern`, GPT-2's when empty."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": not pattern}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": id, "content": token, **flags} for token, id in special.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]} if pattern else level,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": ignore_merges,
            "vocab": dict(vocabulary), "merges": [list(merge) for merge in merges],
        },
    }  # fmt: skip
