"""What guessing tokens ahead is worth: tokens per second with and without, on prompts to repeat and on random ones.

    python benchmarks/engine_speculation.py MODEL [--draft FOLDER] [--rounds 5]

Both engines hold the same model and take turns, round by round. The median of the ratios of processor time is printed,
so that other programs do not count, and the answers are compared. "Repeating" prompts hold a passage of the model's own
three times, so that going on means quoting.
"""

import argparse
import random
import time
from pathlib import Path
from statistics import median

from caslon.engine.engine import Engine
from caslon.engine.request import SamplingParams
from caslon.engine.settings import EngineSettings

NEW_TOKENS = 64
PROMPTS = 3


def seconds(engine: Engine, prompts: list[list[int]], params: SamplingParams) -> tuple[float, list[tuple[int, ...]]]:
    """Return the processor seconds the answers took, one after another, and their ids."""
    started = time.process_time()
    ids = [engine.generate([prompt], params)[0].ids for prompt in prompts]
    return time.process_time() - started, ids


def prompts_of(engine: Engine) -> dict[str, list[list[int]]]:
    """Return prompts of both kinds."""
    chooser = random.Random(1)
    starts = [[chooser.randrange(engine.tokenizer.vocab_size) for _ in range(24)] for _ in range(PROMPTS)]
    said = engine.generate(starts, SamplingParams(max_tokens=32, temperature=0.8, seed=1, ignore_eos=True))
    return {"repeating": [list(one.ids) * 3 for one in said], "random": starts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    kinds = ["ngram"] + ([f"draft:{given.draft}"] if given.draft else [])
    plain = Engine.load(given.model)
    print(
        "| guesses | prompts | temperature | speed against plain | accepted | same answers |\n|---|---|---|---|---|---|"
    )
    for kind in kinds:
        with Engine.load(given.model, EngineSettings(speculate=kind)) as guessing:
            for name, prompts in prompts_of(plain).items():
                for temperature in (0.0, 0.8):
                    params = SamplingParams(max_tokens=NEW_TOKENS, temperature=temperature, seed=1, ignore_eos=True)
                    before = guessing.stats().speculation
                    ratios, same = [], True
                    for _ in range(given.rounds):
                        slow, expected = seconds(plain, prompts, params)
                        fast, found = seconds(guessing, prompts, params)
                        ratios.append(slow / fast)
                        same = same and expected == found
                    counts = guessing.stats().speculation
                    drafted, accepted = counts.drafted - before.drafted, counts.accepted - before.accepted
                    share = f"{accepted / drafted:.0%} of {drafted:,}" if drafted else "none drafted"
                    print(f"| {kind} | {name} | {temperature} | {median(ratios):.2f} | {share} | {same} |")
    plain.close()


if __name__ == "__main__":
    main()
