"""A SentencePiece model file to a Hugging Face tokenizer with the same ids.

The file is a protocol-buffers message (sentencepiece_model.proto); the few fields needed are read here, so that neither protobuf
nor SentencePiece must be installed.
"""

import base64
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caslon.errors import UserError
from caslon.tokenizer.examine import HARD_TEXTS, RANDOM_TEXTS, random_texts
from caslon.tokenizer.import_table import imported, refuse_other_ids
from caslon.tokenizer.tokenizer import Tokenizer

SPACE = "▁"
UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6  # SentencePiece.Type
VARINT, WIDE, LENGTH, NARROW = 0, 1, 2, 5  # wire types


@dataclass(frozen=True)
class Piece:
    """One entry."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class Model:
    """What a model file says."""

    pieces: tuple[Piece, ...]
    algorithm: int
    byte_fallback: bool
    character_map: bytes  # SentencePiece's compiled normaliser; empty: none
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def from_sentencepiece(path: Path, table: str) -> Tokenizer:
    """Return the tokenizer of a .model file; `UserError` when it is not one, or is neither Unigram nor BPE."""
    model = read_model(path)
    tokenizer = imported(_parsed(model, path), _config(model), table=table, format="sentencepiece", files=[path])
    differs = _differences(tokenizer, path)
    if not differs:
        return tokenizer
    note = f"{differs:,} of {RANDOM_TEXTS:,} random Unicode texts get other ids than sentencepiece gives"
    record = {**tokenizer.record, "imported": {**tokenizer.record["imported"], "unequal": note}}
    return Tokenizer(tokenizer.tokenizer_json, tokenizer.config, None, record)


def read_model(path: Path) -> Model:
    """Return the content of a .model file."""
    pieces, trainer, normalizer = [], dict[int, Any](), dict[int, Any]()
    try:
        for field, value in _fields(path.read_bytes()):
            if field == 1:
                piece = dict(_fields(value))
                score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
                pieces.append(Piece(piece[1].decode(), score, piece.get(3, NORMAL)))
            elif field == 2:
                trainer = dict(_fields(value))
            elif field == 3:
                normalizer = dict(_fields(value))
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise UserError(f"not a SentencePiece model: {error}", where=str(path)) from error
    if not pieces:
        raise UserError("not a SentencePiece model: it has no pieces", where=str(path))
    return Model(
        pieces=tuple(pieces),
        algorithm=trainer.get(3, UNIGRAM),
        byte_fallback=bool(trainer.get(35, 0)),
        character_map=normalizer.get(2, b""),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a message: numbers for varints, bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        if wire == LENGTH:
            size, at = _varint(data, at)
        elif wire in (WIDE, NARROW):
            size = 8 if wire == WIDE else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("the file is cut short")
        yield field, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _parsed(model: Model, path: Path) -> dict[str, Any]:
    if model.algorithm not in (UNIGRAM, BPE):
        raise UserError("only Unigram and BPE models can be imported", where=str(path))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": id, "content": piece.text, "special": piece.type != USER_DEFINED, **flags}
        for id, piece in enumerate(model.pieces)
        if piece.type in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    decoders: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    if model.byte_fallback:
        decoders.append({"type": "ByteFallback"})
    decoders.append({"type": "Fuse"})
    if model.add_dummy_prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": _normalizer(model),
        "pre_tokenizer": _cutter(model),
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _unigram(model) if model.algorithm == UNIGRAM else _bpe(model),
    }


def _normalizer(model: Model) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if model.character_map:
        charsmap = base64.b64encode(model.character_map).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if model.remove_extra_whitespaces:  # spaces only: SentencePiece leaves other white space alone
        steps.append({"type": "Replace", "pattern": {"Regex": r"\A +| +\z"}, "content": ""})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if model.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    return {"type": "Sequence", "normalizers": steps}


def _cutter(model: Model) -> dict[str, Any] | None:
    """Return the cut before every space, for speed, unless a piece reaches over it."""
    texts = [piece.text for piece in model.pieces]
    crosses = any(SPACE in text[1:] for text in texts)
    cut = {"type": "Split", "pattern": {"String": SPACE}, "behavior": "MergedWithNext", "invert": False}
    return None if crosses else cut


def _unigram(model: Model) -> dict[str, Any]:
    unknown = next((id for id, piece in enumerate(model.pieces) if piece.type == UNKNOWN), None)
    vocabulary = [[piece.text, piece.score] for piece in model.pieces]
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": model.byte_fallback}


def _bpe(model: Model) -> dict[str, Any]:
    unknown = next((piece.text for piece in model.pieces if piece.type == UNKNOWN), None)
    return {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": model.byte_fallback, "ignore_merges": False,
        "vocab": {piece.text: id for id, piece in enumerate(model.pieces)}, "merges": _merges(model.pieces),
    }  # fmt: skip


def _merges(pieces: Sequence[Piece]) -> list[list[str]]:
    """Return every pair that makes a piece, the best scored first: SentencePiece joins any two neighbours that make one."""
    normal = {piece.text: id for id, piece in enumerate(pieces) if piece.type == NORMAL}
    found = [
        (-pieces[id].score, id, text[:at], text[at:])
        for text, id in normal.items()
        for at in range(1, len(text))
        if text[:at] in normal and text[at:] in normal
    ]
    return [[one, other] for _, _, one, other in sorted(found)]


def _config(model: Model) -> dict[str, Any]:
    texts = {piece.text: piece.type for piece in model.pieces}
    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return {role: token for role, token in roles.items() if texts.get(token) in (CONTROL, UNKNOWN)}


def _differences(tokenizer: Tokenizer, path: Path) -> int:
    """Return how many random texts get other ids than SentencePiece gives; `CaslonError` when a plain text does.

    The library's reader of compiled normalisers goes by grapheme, SentencePiece's by character: rare scripts may differ.
    """
    try:
        import sentencepiece
    except ModuleNotFoundError:
        return 0
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    refuse_other_ids(tokenizer, theirs.encode, "sentencepiece", [*SAMPLES, *HARD_TEXTS])
    return sum(tokenizer.encode(text) != theirs.encode(text) for text in random_texts(0))


SAMPLES = (
    "The prisoner was indicted for stealing, on the 3d of May, one silver watch, value 2l. 10s.",
    "naïve café 漢字 £5",
)
