"""Token folders to the rows a run learns from and is measured on: checked against the tokenizer, mixed with weights, not read.

Opening maps the files into memory and reads where documents begin; ids are looked at when rows are drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from caslon.errors import UserError
from caslon.folders import digest_of
from caslon.tokenizer.token_files import META_FILE, TokenSplit, document_digests, shared_documents

if TYPE_CHECKING:
    from caslon.tokenizer.tokenizer import Tokenizer
    from caslon.train.batches import Documents, TokenRows
    from caslon.train.mixture import MixedBatches

Packing = Literal["packed", "windows"]
TOKENS_FOLDER = "tokens"
OWN = "tokens"  # the name of the recipe's own token files in a mixture


@dataclass(frozen=True)
class DataSet:
    """Token files with a weight."""

    name: str
    weight: float
    folder: Path
    train: TokenSplit
    validation: TokenSplit


@dataclass(frozen=True)
class Data:
    """What a run learns from: one data set, or several with weights."""

    sets: tuple[DataSet, ...]

    @property
    def tokens(self) -> int:
        """Ids of all training splits."""
        return sum(len(one.train.ids) for one in self.sets)

    @property
    def dataset_id(self) -> str:
        """The id of the corpus the text came from; of a mixture, one for all with their weights."""
        if len(self.sets) == 1:
            return self.sets[0].train.dataset_id
        return digest_of([[one.train.dataset_id, one.weight] for one in self.sets])

    def rows(
        self, split: Literal["train", "validation"], packing: Packing, context: int, seed: int, *, doc_mask: bool
    ) -> "TokenRows | MixedBatches":
        """Return the rows of a split, cut in the way that is asked for."""
        from caslon.train.batches import PackedBatches, WindowBatches
        from caslon.train.mixture import mixed

        kind = PackedBatches if packing == "packed" else WindowBatches
        parts = [kind(documents(getattr(one, split)), context, seed, doc_mask) for one in self.sets]
        return mixed(parts, [one.weight for one in self.sets], seed)

    def shares(self, rows: int, batches: "TokenRows | MixedBatches") -> dict[str, float]:
        """Return of a mixture what share of the first `rows` rows came from each data set, by name."""
        from caslon.train.mixture import MixedBatches

        if not isinstance(batches, MixedBatches) or not rows:
            return {}
        return dict(zip((one.name for one in self.sets), batches.shares(rows), strict=True))


def open_data(own: Path, mixture: Mapping[str, float], base: Path, tokenizer: "Tokenizer") -> Data:
    """Return the token files in `own`, or a mixture: weights by name, `tokens` for `own`, else a folder below `base`.

    `UserError` for files of another tokenizer, an empty split, or a document that one set learns and another is measured on.
    """
    weights = mixture or {OWN: 1.0}
    folders = {name: own if name == OWN else mixture_folder(name, base) for name in weights}
    data = Data(
        tuple(
            DataSet(
                name,
                weight,
                folders[name],
                open_split(folders[name], "train", tokenizer),
                open_split(folders[name], "validation", tokenizer),
            )
            for name, weight in weights.items()
        )
    )
    _refuse_shared_documents(data)
    return data


def mixture_folder(name: str, base: Path) -> Path:
    """Return the token files that a mixture names: a tokenizer stage's folder, or the folder of the files itself."""
    for folder in (base / name / TOKENS_FOLDER, base / name):
        if (folder / META_FILE).is_file():
            return folder
    raise UserError(
        f"the mixture names '{name}', where no token files are",
        where=str(base / name),
        fix=f'name the folder of a finished tokenizer stage, or "{OWN}" for the recipe\'s own',
    )


def open_split(folder: Path, name: str, tokenizer: "Tokenizer") -> TokenSplit:
    """Return a split whose ids are this tokenizer's; `UserError` when they are not, or when there are none."""
    split = TokenSplit.open(folder, name)
    if split.tokenizer_digest != tokenizer.digest:
        raise UserError(
            f"the tokens were made by tokenizer {split.tokenizer_digest[:16]}, this one is {tokenizer.digest[:16]}",
            where=str(folder),
            fix="run the tokenizer stage again",
        )
    if not len(split.ids):
        raise UserError(f"the {name} split holds no tokens", where=str(folder), fix="give the corpus more documents")
    return split


def documents(split: TokenSplit) -> "Documents":
    """Return a split as documents to draw rows from, each of which is checked when it is drawn."""
    from caslon.train.batches import Documents

    return Documents(split.ids, split.document_starts, split.end_of_text_id, split.vocab_size)


def _refuse_shared_documents(data: Data) -> None:
    """Raise `UserError` where a document of one set's training split is held out in another; within a set none can be."""
    for held_out in data.sets if len(data.sets) > 1 else ():
        digests = document_digests(held_out.folder, "validation")
        for other in data.sets:
            if other is not held_out and (count := shared_documents(other.folder, "train", digests)):
                raise UserError(
                    f"{count:,} documents of '{other.name}' are held out in '{held_out.name}'",
                    where=str(other.folder),
                    fix="build both from one corpus, or leave one of them out",
                )
