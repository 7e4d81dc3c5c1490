"""Text to ids and back, exactly, from a Hugging Face tokenizer folder. Needs neither torch nor transformers.

A special token's spelling in a text stays plain text unless the caller asks otherwise, so that no text can forge the end of a
document or a turn. Our own folders are byte-level (see `algorithms`); folders of other makers load too, as long as they hold a
`tokenizer.json`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from caslon.errors import UserError
from caslon.folders import digest_of, write_atomic
from caslon.tokenizer import special
from caslon.tokenizer.tags import APART, CAPITAL, UPPER, Tags

if TYPE_CHECKING:
    from caslon.tokenizer.chat import EncodedChat, Message

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_MAP_FILE = "special_tokens_map.json"
TEMPLATE_FILE = "chat_template.jinja"
RECORD_FILE = "caslon_tokenizer.json"
LEXICON_FILE = "special_map.json"
SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # how SentencePiece vocabularies spell a single byte


@dataclass(frozen=True, eq=False, repr=False)
class Tokenizer:
    """A tokenizer that never changes: `decode(encode(text)) == text` for every text of a byte-level one."""

    tokenizer_json: str  # the content of tokenizer.json
    config: Mapping[str, Any]  # the content of tokenizer_config.json
    chat_template: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)  # the content of caslon_tokenizer.json
    declared_stop_ids: tuple[int, ...] = ()  # `eos_token_id` of the generation_config.json beside it
    special_map: Mapping[str, Any] = field(default_factory=dict)  # the content of special_map.json: the lexicon's words

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Return the tokenizer of a tokenizer or model folder; `UserError` when it has none or it cannot be read."""
        folder = Path(folder)
        if not (folder / TOKENIZER_FILE).is_file():
            raise UserError(
                f"no {TOKENIZER_FILE} in this folder", where=str(folder), fix="give a tokenizer or model folder"
            )
        config = _read_json(folder / CONFIG_FILE)
        template_file = folder / TEMPLATE_FILE
        template = template_file.read_text(encoding="utf-8") if template_file.is_file() else _template_of(config)
        tokenizer = cls(
            tokenizer_json=(folder / TOKENIZER_FILE).read_text(encoding="utf-8"),
            config=_read_json(folder / SPECIAL_MAP_FILE) | config,
            chat_template=template,
            record=_read_json(folder / RECORD_FILE),
            declared_stop_ids=_declared_stop_ids(folder),
            special_map=_read_json(folder / LEXICON_FILE),
        )
        tokenizer._check(folder)
        return tokenizer

    def save(self, folder: Path) -> None:
        """Write the whole Hugging Face tokenizer folder; equal tokenizers write equal bytes."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = self._files()
        for name, text in files.items():
            write_atomic(folder / name, text)
        if self.record:
            digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(files.items())}
            record = {**self.record, "digest": self.digest, "files": digests}
            write_atomic(folder / RECORD_FILE, _json_text(record))
        write_atomic(folder / TOKENIZER_FILE, self.tokenizer_json)  # last: a folder that has it is whole

    def _files(self) -> dict[str, str]:
        """Return the content of every file but the record."""
        roles = {role: self.config[role] for role in SPECIAL_ROLES if self.config.get(role) is not None}
        config = {name: value for name, value in self.config.items() if name != "chat_template"}
        files = {CONFIG_FILE: _json_text(config), SPECIAL_MAP_FILE: _json_text(roles)}
        if self.chat_template is not None:
            files[TEMPLATE_FILE] = self.chat_template
        if self.special_map:
            files[LEXICON_FILE] = json.dumps(self.special_map, indent=1, ensure_ascii=False) + "\n"
        model = self._parsed["model"]
        if model.get("type") == "BPE":
            files["vocab.json"] = json.dumps(model["vocab"], ensure_ascii=False) + "\n"
            files["merges.txt"] = _merges_text(model["merges"])
        return files | {TOKENIZER_FILE: self.tokenizer_json}

    @cached_property
    def vocab_size(self) -> int:
        """The number of ids, special tokens included (the largest id plus one)."""
        return max(self._ids.values()) + 1

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of tokenizer.json in canonical form: equal for equal tokenizers, however the file is laid out."""
        return digest_of(self._parsed)

    def encode(self, text: str, *, allow_special: bool = False, add_special_tokens: bool = False) -> list[int]:
        """Return the ids of a text. Only with `allow_special` do special spellings become special ids.

        `add_special_tokens` puts the start-of-text id first and the end-of-text id last.
        """
        if self.tags:
            ids = self._tagged(text, allow_special=allow_special).ids
        else:
            tokenizer = self._special_encoder if allow_special else self._plain_encoder
            ids = tokenizer.encode(self.checked(text, allow_special=allow_special), add_special_tokens=False).ids
        return [self.start_of_text_id, *ids, self.end_of_text_id] if add_special_tokens else ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, the same as `encode` gives, in less time for much text."""
        from caslon.tokenizer.bulk import BulkEncoder

        encoder = BulkEncoder(self)
        return [encoder.encode(text).tolist() for text in texts]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of the ids. Bytes that are not UTF-8 become U+FFFD; `UserError` for an id outside the vocabulary."""
        kept = [self._known(id) for id in ids]
        if skip_special_tokens:
            kept = [id for id in kept if id not in self.special_ids]
        if self.tags:
            return self.tags.joined(kept, self._bytes).decode("utf-8", errors="replace")
        if self.is_byte_level:
            return b"".join(map(self._bytes.__getitem__, kept)).decode("utf-8", errors="replace")
        text: str = self._plain_encoder.decode(kept, skip_special_tokens=False)
        return text

    def token_bytes(self, id: int) -> bytes:
        """Return the raw bytes of one token, which need not be whole characters; a special token's are its spelling.

        A tag's are its word in lower case with the space before it, whatever marks stand before the tag.
        """
        return self._bytes[self._known(id)]

    def id_of(self, token: str) -> int:
        """Return the id of a token by its exact spelling; `UserError` when the vocabulary lacks it."""
        if token not in self._ids:
            raise UserError(f"this tokenizer has no token {token!r}", fix="use a tokenizer trained by caslon")
        return self._ids[token]

    def __contains__(self, token: str) -> bool:
        return token in self._ids

    def spelling_of(self, id: int) -> str:
        """Return a token as it stands in the vocabulary file."""
        return self._tokens[self._known(id)]

    @cached_property
    def special_tokens(self) -> Mapping[str, int]:
        """The special tokens by spelling."""
        return {token["content"]: token["id"] for token in self._added if token["special"]}

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no text."""
        return frozenset(self.special_tokens.values())

    @cached_property
    def end_of_text_id(self) -> int:
        """The id that closes every document."""
        declared = self._role_token("eos_token")
        if declared is not None and declared not in special.END_OF_TURN_SPELLINGS:
            return self.id_of(declared)
        for spelling in special.END_OF_TEXT_SPELLINGS:
            if spelling in self._ids:
                return self._ids[spelling]
        if declared is not None:
            return self.id_of(declared)
        if self.declared_stop_ids:
            return self.declared_stop_ids[0]
        raise UserError("this tokenizer names no end-of-text token", fix=f"set eos_token in {CONFIG_FILE}")

    @cached_property
    def start_of_text_id(self) -> int:
        """The id that may open a text. Families without one, as GPT-2 and Qwen, open with the end-of-text id."""
        declared = self._role_token("bos_token")
        return self.end_of_text_id if declared is None else self.id_of(declared)

    @cached_property
    def pad_id(self) -> int:
        """The id that fills up a row. Families without one, as GPT-2 and Llama, fill with the end-of-text id."""
        declared = self._role_token("pad_token")
        return self.end_of_text_id if declared is None else self.id_of(declared)

    @cached_property
    def end_of_turn_id(self) -> int | None:
        """The id that closes a turn of the chat template; None when there is no template or it uses the end of text."""
        for spelling in special.END_OF_TURN_SPELLINGS:
            if self.chat_template and spelling in self._ids and spelling in self.chat_template:
                return self._ids[spelling]
        return None

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids at which generation ends, for `eos_token_id` of generation_config.json: end of text, then end of turn."""
        turn = () if self.end_of_turn_id is None else (self.end_of_turn_id,)
        return tuple(dict.fromkeys((self.end_of_text_id, *turn, *self.declared_stop_ids)))

    def encode_chat(
        self,
        messages: "Sequence[Message]",
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        drop_earlier_thinking: bool = False,
        context: int | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> "EncodedChat":
        """Return the ids of a conversation in this tokenizer's template (see `caslon.tokenizer.chat`)."""
        from caslon.tokenizer.chat import encode_chat

        return encode_chat(
            self,
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            drop_earlier_thinking=drop_earlier_thinking,
            context=context,
            variables=variables,
        )

    def count(self, what: "str | Sequence[Message]", *, tools: Sequence[Mapping[str, Any]] | None = None) -> int:
        """Return how many tokens a model would get for a text, or for a conversation with the opening of its answer."""
        if isinstance(what, str):
            return len(self.encode(what))
        return len(self.encode_chat(what, add_generation_prompt=True, tools=tools).ids)

    @cached_property
    def special_role_tokens(self) -> dict[str, str]:
        """`{"bos_token": ..., "eos_token": ...}`: the roles that templates may name."""
        found = {role: self._role_token(role) for role in SPECIAL_ROLES}
        return {role: token for role, token in found.items() if token is not None}

    @cached_property
    def special_spellings(self) -> re.Pattern[str]:
        """A pattern that finds every special spelling, the longest where several begin."""
        longest_first = sorted(self.special_tokens, key=lambda token: (-len(token), token))
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @cached_property
    def special_beginnings(self) -> tuple[str, ...]:
        """Every beginning of a special spelling, for those who join texts."""
        return tuple({token[:size] for token in self.special_tokens for size in range(1, len(token))})

    @cached_property
    def is_byte_level(self) -> bool:
        """Whether every token stands for fixed bytes, so that decoding is joining."""
        return self._has_byte_symbols and self.tags is None

    @cached_property
    def alphabet(self) -> frozenset[str] | None:
        """The characters it can spell, where they are all it knows (a vocabulary of characters); None: every text."""
        if self._parsed["model"].get("type") != "WordLevel" or not self.is_byte_level:
            return None
        return frozenset(self.token_bytes(id).decode() for id in range(self.vocab_size) if id not in self.special_ids)

    def takes(self, text: str) -> bool:
        """Return whether it has tokens for every character of a text."""
        return self.alphabet is None or self.alphabet.issuperset(text)

    def checked(self, text: str, *, allow_special: bool = False) -> str:
        """Return a text that can be encoded; `UserError` names the first character that cannot."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"the text holds U+{ord(text[error.start]):04X}, half of a surrogate pair, which is no character",
                where=f"character {error.start}",
                fix="repair the text, for example: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')",
            ) from None
        if self.alphabet is not None:
            rest = self.special_spellings.sub("", text) if allow_special else text
            if unknown := set(rest) - self.alphabet:
                place = min(map(text.index, unknown))
                raise UserError(
                    f"{text[place]!r} is none of the {len(self.alphabet)} characters of this vocabulary",
                    where=f"character {place} of the text",
                    fix='leave it out, or train with algorithm = "bytes", which knows every text',
                )
        return text

    @cached_property
    def tags(self) -> Tags | None:
        """The tags that stand for lexicon words; None unless the tokenizer was learned with `special_mode = "tags"`."""
        if self.special_map.get("mode") != "tags" or not self.special_map.get("entries"):
            return None
        ids = {entry["word"]: entry["id"] for entry in self.special_map["entries"]}
        return Tags(ids, self.id_of(APART), self.id_of(CAPITAL), self.id_of(UPPER))

    @cached_property
    def _has_byte_symbols(self) -> bool:
        decoder = self._parsed.get("decoder") or {}
        steps = decoder["decoders"] if decoder.get("type") == "Sequence" else [decoder]
        mark = {"type": "Replace", "pattern": {"String": special.CONTINUATION}, "content": ""}
        return (
            [step for step in steps if step != mark]
            == [step for step in steps if step.get("type") == "ByteLevel"]
            != []
        )

    @cached_property
    def splits_like_gpt2(self) -> bool:
        """Whether text is cut by GPT-2's pattern alone, which the bulk encoder relies on."""
        cutter = self._parsed.get("pre_tokenizer") or {}
        added_are_special = all(token["special"] for token in self._added)
        return (
            cutter.get("type") == "ByteLevel"
            and cutter.get("use_regex", True)
            and not cutter.get("add_prefix_space", True)
            and self._parsed.get("normalizer") is None
            and added_are_special
            and self.tags is None
        )

    def encoding(self, text: str, *, allow_special: bool) -> Any:
        """Return the ids and offsets of a text: the library's own encoding, or one with its attributes `ids` and `offsets`."""
        if self.tags:
            return self._tagged(text, allow_special=allow_special)
        tokenizer = self._special_encoder if allow_special else self._plain_encoder
        return tokenizer.encode(self.checked(text, allow_special=allow_special), add_special_tokens=False)

    @property
    def model(self) -> Any:
        """The library's model: pieces of text in byte symbols to tokens."""
        return self._plain_encoder.model

    def _tagged(self, text: str, *, allow_special: bool) -> "_TaggedEncoding":
        """Return the encoding of a text whose lexicon words become tags, special spellings left alone."""
        assert self.tags is not None
        found = _TaggedEncoding([], [])
        at = 0
        for stretch, special_id in self._stretches(self.checked(text), allow_special=allow_special):
            for part, ids in ((stretch, (special_id,)),) if special_id is not None else self.tags.parts(stretch):
                if ids:
                    found.ids.extend(ids)
                    found.offsets.extend([(at, at + len(part))] * len(ids))
                else:
                    encoding = self._plain_encoder.encode(part, add_special_tokens=False)
                    found.ids.extend(encoding.ids)
                    found.offsets.extend((at + start, at + end) for start, end in encoding.offsets)
                at += len(part)
        return found

    def _stretches(self, text: str, *, allow_special: bool) -> Iterator[tuple[str, int | None]]:
        """Yield the text in stretches, with the id of each that is a special spelling, where those are allowed."""
        at = 0
        for match in self.special_spellings.finditer(text) if allow_special else ():
            yield text[at : match.start()], None
            yield match[0], self.special_tokens[match[0]]
            at = match.end()
        yield text[at:], None

    def _check(self, folder: Path) -> None:
        try:
            size = self.vocab_size
        except Exception as error:
            raise UserError(
                f"{TOKENIZER_FILE} cannot be read: {error}", where=str(folder / TOKENIZER_FILE), fix="restore the file"
            ) from error
        expected = self.record.get("vocab_size", size)
        if expected != size:
            raise UserError(
                f"{RECORD_FILE} says {expected} entries, {TOKENIZER_FILE} has {size}",
                where=str(folder),
                fix="the two files are from different tokenizers; copy the whole folder again",
            )

    def _known(self, id: int) -> int:
        if 0 <= id < self.vocab_size:
            return int(id)
        raise UserError(f"id {id} is not in the vocabulary of {self.vocab_size} entries")

    def _role_token(self, role: str) -> str | None:
        value = self.config.get(role)
        if isinstance(value, Mapping):
            value = value.get("content")
        return value if isinstance(value, str) and value in self._ids else None

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.tokenizer_json)
        return parsed

    @cached_property
    def _added(self) -> list[dict[str, Any]]:
        return list(self._parsed.get("added_tokens") or [])

    @cached_property
    def _special_encoder(self) -> tokenizers.Tokenizer:
        tokenizer = tokenizers.Tokenizer.from_str(self.tokenizer_json)
        tokenizer.no_truncation()  # some folders ask for it; caslon never cuts a text silently
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _plain_encoder(self) -> tokenizers.Tokenizer:
        tokenizer = tokenizers.Tokenizer.from_str(self.tokenizer_json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # the library's name for "special spellings are plain text"
        return tokenizer

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids: dict[str, int] = self._plain_encoder.get_vocab(with_added_tokens=True)
        return ids

    @cached_property
    def _tokens(self) -> list[str]:
        tokens = [""] * self.vocab_size
        for token, id in self._ids.items():
            tokens[id] = token
        return tokens

    @cached_property
    def _bytes(self) -> list[bytes]:
        added = {token["id"] for token in self._added}
        symbols = special.byte_symbols()
        found = [
            token.encode() if id in added else _bytes_of(token, symbols, self._has_byte_symbols)
            for id, token in enumerate(self._tokens)
        ]
        if self.tags:
            for word, id in self.tags.ids.items():
                found[id] = f" {word}".encode()
            for mark in (self.tags.apart, self.tags.capital, self.tags.upper):
                found[mark] = b""
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.tokenizer_json, dict(self.config), self.chat_template, dict(self.record), self.declared_stop_ids)
        return Tokenizer, (*parts, dict(self.special_map))

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size} entries, {self.digest[:12]})"


@dataclass(frozen=True)
class _TaggedEncoding:
    """What the library's encoding gives, for a text with tags."""

    ids: list[int]
    offsets: list[tuple[int, int]]  # half-open, in characters


def _bytes_of(token: str, symbols: Mapping[str, int], byte_level: bool) -> bytes:
    if byte_level:
        token = token.removeprefix(special.CONTINUATION)
        if all(character in symbols for character in token):
            return bytes(symbols[character] for character in token)
        return token.encode()
    single = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(single[1], 16)]) if single else token.replace("▁", " ").encode()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"not valid JSON: {error}", where=str(path), fix="restore the file") from error
    if not isinstance(value, dict):
        raise UserError("expected a JSON object", where=str(path), fix="restore the file")
    return value


def _json_text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _template_of(config: Mapping[str, Any]) -> str | None:
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates; the one called default is the chat's
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    return template


def _declared_stop_ids(folder: Path) -> tuple[int, ...]:
    for name in ("generation_config.json", "config.json"):
        value = _read_json(folder / name).get("eos_token_id")
        if value is not None:
            return tuple(value) if isinstance(value, list) else (value,)
    return ()


def _merges_text(merges: Sequence[str | Sequence[str]]) -> str:
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    return "\n".join(["#version: 0.2", *lines]) + "\n"
