"""MB of text per second and core that HF tokenizers, tiktoken, sentencepiece and caslon encode: same text, one run.

    python benchmarks/tokenizer_encoding.py TEXTS... [--tokenizer FOLDER] [--megabytes 50] [--output encoding.json]

TEXTS are .txt, .jsonl or .parquet files. Without --tokenizer one of 30,000 entries is learned from every second text, at most
20 MB. HF tokenizers, tiktoken and caslon hold that very vocabulary and their ids are compared; sentencepiece cannot, so it learns
a byte-pair vocabulary of the same size from the same text. Seconds are of the processor, one thread each, so that a busy machine
does not count; the programs take turns over the rounds and the median stands.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers

from caslon.tokenizer.bulk import BulkEncoder
from caslon.tokenizer.encode import write_token_files
from caslon.tokenizer.ranks import ranked_encoder
from caslon.tokenizer.texts import texts_of_files
from caslon.tokenizer.tokenizer import TOKENIZER_FILE, Tokenizer
from caslon.tokenizer.train import train_tokenizer

VOCAB_SIZE = 30_000
TRAINING_CHARACTERS = 20_000_000
HF_SHARE = 10  # the slow ones get one text in ten: their speed does not depend on how much there is
ROUNDS = 3

Encode = Callable[[str], Sequence[int]]


def taken(texts: Iterable[str], megabytes: float) -> list[str]:
    found, size = [], 0
    for text in texts:
        found.append(text)
        size += len(text.encode())
        if size >= megabytes * 1e6:
            break
    return found


def training_share(texts: Sequence[str]) -> list[str]:
    found, size = [], 0
    for text in texts[::2]:
        found.append(text)
        size += len(text)
        if size >= TRAINING_CHARACTERS:
            break
    return found


def sentencepiece_encoder(texts: Sequence[str], folder: Path) -> Encode:
    lines = "\n".join(texts)[:TRAINING_CHARACTERS]
    (folder / "text.txt").write_text(lines, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "sp"), vocab_size=VOCAB_SIZE, model_type="bpe",
        byte_fallback=True, minloglevel=5,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sp.model"))
    encode: Encode = processor.encode
    return encode


def speed(work: Callable[[str], Any], texts: Sequence[str]) -> float:
    size = sum(len(text.encode()) for text in texts)
    began = time.process_time()
    for text in texts:
        work(text)
    return size / 1e6 / (time.process_time() - began)


def encoders(tokenizer: Tokenizer, texts: Sequence[str], folder: Path) -> dict[str, Encode]:
    library = tokenizers.Tokenizer.from_str(tokenizer.tokenizer_json)
    library.encode_special_tokens = True
    ranked = ranked_encoder(tokenizer)
    assert ranked is not None, "this tokenizer cannot be encoded by ranks"
    bulk, memo = BulkEncoder(tokenizer), BulkEncoder(tokenizer)
    bulk.use_ranks()
    memo._asked_for_ranks = True  # what caslon does where tiktoken is not installed
    return {
        "HF tokenizers": lambda text: library.encode(text, add_special_tokens=False).ids,
        "sentencepiece": sentencepiece_encoder(texts, folder),
        "tiktoken": ranked.encode,
        "caslon": lambda text: bulk.encode(text).tolist(),
        "caslon without tiktoken": lambda text: memo.encode(text).tolist(),
    }


def measure(tokenizer: Tokenizer, texts: Sequence[str], folder: Path) -> dict[str, Any]:
    ways = encoders(tokenizer, training_share(texts), folder)
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, encode in ways.items():
            slow = name in ("HF tokenizers", "sentencepiece")
            speeds[name].append(speed(encode, texts[::HF_SHARE] if slow else texts))
    sample = texts[::HF_SHARE]
    for name in ("tiktoken", "caslon", "caslon without tiktoken"):
        for text in sample:
            assert ways[name](text) == ways["HF tokenizers"](text), f"{name} gives other ids"
    ids = {text: ways["caslon"](text) for text in sample}
    decoding = [speed(lambda text: tokenizer.decode(ids[text]), sample) for _ in range(ROUNDS)]
    return {
        "encoding_megabytes_per_core_second": {name: statistics.median(found) for name, found in speeds.items()},
        "decoding_megabytes_per_core_second": statistics.median(decoding),
        "texts_with_equal_ids": len(sample),
    }


def loading_seconds(folder: Path) -> float:
    def once() -> float:
        began = time.process_time()
        Tokenizer.load(folder).encode("London")
        return time.process_time() - began

    return statistics.median(once() for _ in range(ROUNDS))


def writing_seconds(tokenizer: Tokenizer, texts: Sequence[str], folder: Path, workers: int) -> float:
    units = [(str(number), text) for number, text in enumerate(texts)]
    began = time.perf_counter()
    write_token_files(
        folder / f"tokens-{workers}", tokenizer, lambda split: units if split == "train" else [], dataset_id="benchmark",
        workers=workers,
    )  # fmt: skip
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    texts = taken(texts_of_files(arguments.texts), arguments.megabytes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = arguments.tokenizer or folder / "tokenizer"
        if arguments.tokenizer is None:
            train_tokenizer(training_share(texts), vocab_size=VOCAB_SIZE).save(source)
        tokenizer = Tokenizer.load(source)
        size = sum(len(text.encode()) for text in texts)
        found = {
            "megabytes": size / 1e6,
            "texts": len(texts),
            "vocab_size": tokenizer.vocab_size,
            "tokenizer_bytes": (source / TOKENIZER_FILE).stat().st_size,
            "loading_seconds": loading_seconds(source),
            **measure(tokenizer, texts, folder),
            "token_files_megabytes_per_second": {
                str(workers): size / 1e6 / writing_seconds(tokenizer, texts, folder, workers) for workers in (1, 2)
            },
        }
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
