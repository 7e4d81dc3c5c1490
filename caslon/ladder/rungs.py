"""The rungs of the ladder from the ground up, each with what it can use of a language. Imports no torch until one is trained."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from caslon.errors import UserError
from caslon.ladder import counting
from caslon.ladder.cbow import Cbow, CbowSettings
from caslon.ladder.naive_bayes import NaiveBayes
from caslon.ladder.rung import ByteModel, Reach, Rung, Work
from caslon.settings import nearest

if TYPE_CHECKING:
    from caslon.ladder.training import Kind

NAIVE_BAYES_BYTES = (2, 4, 8)
LAPLACE_ORDERS = (3, 5)
WITTEN_BELL_ORDERS = (3, 4, 5, 6, 7)
KNESER_NEY_ORDERS = (5, 6)
CBOW_BYTES = (2, 4)
CONTEXT = 128  # bytes a network sees at once
MLP_BYTES = 8

SPELLING = "spelling"
PHRASES = "spelling and set phrases"
NETWORKS: dict[str, tuple["Kind", Reach, dict[str, Any]]] = {
    "mlp": ("mlp", Reach(MLP_BYTES, "spelling, similar contexts alike"), {"back": MLP_BYTES}),
    "rnn": ("rnn", Reach(CONTEXT, "yes", "fades within words"), {}),
    "lstm": ("lstm", Reach(CONTEXT, "yes", "fades within sentences"), {"learning_rate": 1e-2}),
    "gpt2": ("gpt2", Reach(CONTEXT, "yes", "yes, within its context"), {}),
    "llama": ("llama", Reach(CONTEXT, "yes", "yes, within its context"), {}),
}
TRANSFORMER = {"width": 128, "optimizer": "muon", "precision": "auto"}


def all_rungs(*, seed: int, steps: int | None = None) -> list[Rung]:
    """Return every rung; `steps` replaces the training steps of those that take steps."""
    return [
        Rung("uniform", Reach(0, "no"), lambda text, _: counting.uniform(text)),
        Rung("unigram", Reach(0, "no"), lambda text, _: counting.laplace(text, 1)),
        Rung("markov", Reach(1, "pairs of letters"), lambda text, _: counting.laplace(text, 2)),
        *(_naive_bayes(k) for k in NAIVE_BAYES_BYTES),
        *(_ngram("laplace", order) for order in LAPLACE_ORDERS),
        *(_ngram("witten-bell", order) for order in WITTEN_BELL_ORDERS),
        *(_ngram("kneser-ney", order) for order in KNESER_NEY_ORDERS),
        *(_cbow(context, seed, steps) for context in CBOW_BYTES),
        *(_network(name, seed, steps) for name in NETWORKS),
    ]


def chosen_rungs(names: Sequence[str], rungs: Sequence[Rung]) -> list[Rung]:
    """Return the rungs with these names, in the ladder's order; `UserError` names the nearest one for a name that is none."""
    known = [rung.name for rung in rungs]
    for name in names:
        if name not in known:
            guess = nearest(name, known)
            hint = f"did you mean {guess!r}? " if guess else ""
            raise UserError(f"no rung {name!r}", fix=f"{hint}there are: {', '.join(known)}")
    return [rung for rung in rungs if not names or rung.name in names]


def _naive_bayes(k: int) -> Rung:
    reach = Reach(k, "no: each byte alone")
    return Rung(f"naive-bayes-{k}", reach, lambda text, _: NaiveBayes.of(text, k))


def _ngram(smoothing: str, order: int) -> Rung:
    train = {"laplace": counting.laplace, "witten-bell": counting.witten_bell, "kneser-ney": counting.kneser_ney}[
        smoothing
    ]
    reach = Reach(order - 1, PHRASES if order >= 5 else SPELLING)
    return Rung(f"{smoothing}-{order}", reach, lambda text, _: train(text, order))


def _cbow(context: int, seed: int, steps: int | None) -> Rung:
    settings = CbowSettings(context=context, seed=seed, steps=steps or CbowSettings.steps)

    def train(text: bytes, work: Work) -> ByteModel:
        return Cbow.of(text, settings, lambda done, total: work.events.progress("train", done, total, "steps"))

    return Rung(f"cbow-{context}", Reach(context, "no: order is lost"), train, asdict(settings), "parameters")


def _network(name: str, seed: int, steps: int | None) -> Rung:
    kind, reach, shape = NETWORKS[name]
    own = TRANSFORMER if kind in ("gpt2", "llama") else {}
    given = {"kind": kind, "context": CONTEXT, "seed": seed, **own, **shape, **({"steps": steps} if steps else {})}

    def train(text: bytes, work: Work) -> ByteModel:
        from caslon.ladder.training import NetworkSettings, train_network

        return train_network(text, NetworkSettings(**given), work.folder, work.events)

    return Rung(name, reach, train, given, "parameters")
