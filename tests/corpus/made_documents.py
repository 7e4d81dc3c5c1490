"""Documents and folders of texts that the corpus tests share."""

import random
from pathlib import Path

from caslon.corpus.document import BLOCK_SEPARATOR, Block, Document, Origin

NOUN_LIST = "king city river bridge merchant ship church market letter garden morning winter physician garment window"
VERB_LIST = "carried visited remembered examined purchased described admired followed defended repaired"
ADJECTIVE_LIST = "ancient honest crowded narrow learned pleasant terrible remarkable generous sudden"
PLACE_LIST = "near the river,in the city,before the church,at the market,beyond the bridge,within the garden"
NOUNS, VERBS, ADJECTIVES, PLACES = NOUN_LIST.split(), VERB_LIST.split(), ADJECTIVE_LIST.split(), PLACE_LIST.split(",")


def sentence(random_numbers: random.Random) -> str:
    """Return an English sentence of about fifteen words."""
    pick = random_numbers.choice
    return (
        f"The {pick(ADJECTIVES)} {pick(NOUNS)} {pick(VERBS)} the {pick(ADJECTIVES)} {pick(NOUNS)} {pick(PLACES)}, "
        f"and the {pick(NOUNS)} of the {pick(NOUNS)} was {pick(ADJECTIVES)}."
    )


def prose(seed: int, paragraphs: int = 4, sentences: int = 5) -> str:
    """Return English prose that depends on the seed alone."""
    random_numbers = random.Random(seed)
    return BLOCK_SEPARATOR.join(" ".join(sentence(random_numbers) for _ in range(sentences)) for _ in range(paragraphs))


def document(text: str, *, tier: str = "general", path: str = "a.txt", **fields: object) -> Document:
    """Return a document whose blocks are the text's paragraphs, with exact places in it."""
    blocks, position = [], 0
    for part in text.split(BLOCK_SEPARATOR):
        blocks.append(Block(part, position, position + len(part)))
        position += len(part) + len(BLOCK_SEPARATOR)
    return Document(Origin("source", path), tuple(blocks), tier=tier, **fields)  # type: ignore[arg-type]


def folder_of_texts(folder: Path, count: int = 24) -> Path:
    """Write a folder of texts: good ones, an exact and a near copy, an empty, a German, a repetitive and a short one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"good-{number:02d}.txt").write_text(prose(number, paragraphs=4 + number % 9), encoding="utf-8")
    original = (folder / "good-03.txt").read_text(encoding="utf-8")
    (folder / "copy.txt").write_text(original.upper().replace(",", " ,"), encoding="utf-8")
    (folder / "nearly.txt").write_text(original + "\n\nThis sentence stands in the copy only.", encoding="utf-8")
    (folder / "empty.txt").write_text(" \n\n ", encoding="utf-8")
    (folder / "short.txt").write_text("Too short to be of any use to anybody.", encoding="utf-8")
    (folder / "spam.txt").write_text("Buy the wonderful elixir today and be well for ever.\n" * 300, encoding="utf-8")
    german = "Der König ging am frühen Morgen durch die alte Stadt und sah die Schiffe auf dem breiten Fluss liegen. "
    lines = [german.replace("König", name) for name in ("Kaufmann", "Bischof", "Schreiber", "Soldat", "Gärtner")]
    (folder / "german.txt").write_text("\n\n".join(line * 2 for line in lines), encoding="utf-8")
    return folder
