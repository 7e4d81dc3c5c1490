"""Seconds, CPU seconds and memory of learning a tokenizer from a given amount of text, one algorithm after another.

    python benchmarks/tokenizer_training.py FILES [--megabytes 60] [--vocab-size 30000] [--algorithms bpe] [--lexicon london]

FILES are texts (.txt, .jsonl, .parquet) or the folder of a corpus stage. The sample is drawn in proportion for every file. Each
algorithm runs in a process of its own, so that its peak memory is its own. CPU seconds tell a busy machine from a slow one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from caslon.tokenizer.lexicon import load_lexicon
from caslon.tokenizer.sample import draw_sample
from caslon.tokenizer.texts import expanded, sized_texts, texts_of_files
from caslon.tokenizer.train import TrainingSettings, train_tokenizer


def measured(options: argparse.Namespace) -> dict[str, object]:
    """Return the figures of one training in this process."""
    paths = expanded(options.files, ("train",))
    sizes, _ = sized_texts(paths)
    rows = ((text.id, text.source, text.bytes) for text in sizes)
    sample = draw_sample(rows, max_bytes=round(options.megabytes * 1e6), seed=1)
    settings = TrainingSettings(
        vocab_size=options.vocab_size, algorithm=options.algorithms[0], lexicon=load_lexicon(options.lexicon)
    )
    start, cpu = time.perf_counter(), time.process_time()
    tokenizer = train_tokenizer(sample.drawn(texts_of_files(paths)), settings=settings)
    return {
        "algorithm": options.algorithms[0],
        "entries": tokenizer.vocab_size,
        "megabytes": round(int(sample.bytes_to_read.sum()) / 1e6, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--megabytes", type=float, default=60.0)
    parser.add_argument("--vocab-size", type=int, default=30_000)
    parser.add_argument("--lexicon", default="")
    parser.add_argument("--algorithms", nargs="+", default=["bpe"])
    options = parser.parse_args()
    if len(options.algorithms) == 1:
        print(json.dumps(measured(options)), flush=True)
        return
    same = [
        "--megabytes",
        str(options.megabytes),
        "--vocab-size",
        str(options.vocab_size),
        "--lexicon",
        options.lexicon,
    ]
    for algorithm in options.algorithms:
        command = [sys.executable, __file__, *map(str, options.files), *same, "--algorithms", algorithm]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
