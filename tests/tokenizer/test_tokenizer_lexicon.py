import json
import re
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from caslon.errors import UserError
from caslon.tokenizer import special
from caslon.tokenizer.lexicon import NO_LEXICON, load_lexicon
from caslon.tokenizer.train import TrainingSettings, train_tokenizer

CATEGORIES = {
    "language": 25, "london geography": 20, "professions": 20, "social class": 15, "temporal": 15, "periods": 10,
    "legal": 10, "religious": 10, "currency and measures": 10, "transport": 10,
}  # fmt: skip
NAMED = {
    "language": "thou thee thy thine hast hath doth dost quoth tis twas twill verily forsooth",
    "london geography": "london thames westminster tower newgate southwark cheapside fleet ludgate aldgate",
    "professions": "apothecary coachman chimneysweep baker butcher merchant",
    "social class": "noble gentleman commoner apprentice yeoman",
    "temporal": "morn eve season year",
    "periods": "tudor stuart georgian regency victorian",
    "legal": "court jury verdict prisoner",
    "religious": "church parish prayer blessed",
    "currency and measures": "shilling pound yard furlong",
    "transport": "coach carriage horse vessel",
}
FEWEST_OCCURRENCES = 100


def rows() -> list[dict[str, object]]:
    path = Path(load_lexicon.__code__.co_filename).parent / "lexicons" / "london.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["entries"])


def test_the_london_lexicon_has_145_words_in_ten_categories() -> None:
    lexicon = load_lexicon("london")
    assert len(lexicon.entries) == 145
    assert len(lexicon.entries) + len(special.CONTROL_TOKENS) == 150
    assert Counter(entry.category for entry in lexicon.entries) == CATEGORIES
    assert len({entry.word for entry in lexicon.entries}) == 145
    assert all(entry.canonical.lower() == entry.word and entry.source for entry in lexicon.entries)
    assert len(lexicon.forms) == 580


def test_all_sixty_named_words_are_there_in_their_category() -> None:
    found = {(entry.category, entry.word) for entry in load_lexicon("london").entries}
    named = {(category, word) for category, words in NAMED.items() for word in words.split()}
    assert len(named) == 60
    assert named <= found
    by_source = Counter(entry.source for entry in load_lexicon("london").entries)
    assert by_source == {"reference recipe": 60, "chosen": 85}


def test_rare_words_have_a_written_reason() -> None:
    rare = [row for row in rows() if int(str(row["occurrences"])) < FEWEST_OCCURRENCES]
    assert all(row["reason"] and row["source"] == "reference recipe" for row in rare)
    assert {row["word"] for row in rare} == {"chimneysweep", "tudor", "georgian", "victorian", "furlong"}


@pytest.mark.slow
def test_the_chosen_words_occur_a_hundred_times_in_the_collection(real_data: Path) -> None:
    wanted = {str(row["word"]) for row in rows() if row["source"] == "chosen"}
    files = json.loads((real_data / "london" / "sources.json").read_text(encoding="utf-8"))["files"]
    training = {file["path"] for file in files if file["role"] == "train"}
    counts: Counter[str] = Counter()
    for archive in (
        "books",
        "oldbailey-ordinary",
        "eebo-tcp",
        "plays",
        "perseus",
        "ecco-tcp-txt",
        "londonlives-petitions",
    ):
        with tarfile.open(real_data / "london" / f"{archive}.tar.bz2", "r:bz2") as files_:
            for member in files_:
                if member.name in training and (file := files_.extractfile(member)):
                    text = re.sub(r"<[^>]*>", "", file.read().decode("utf-8", errors="replace")).lower()
                    counts.update(word for word in re.findall(r"[^\W\d_]+", text) if word in wanted)
        if all(counts[word] >= FEWEST_OCCURRENCES for word in wanted):
            return
    assert {word: counts[word] for word in wanted if counts[word] < FEWEST_OCCURRENCES} == {}


def test_no_lexicon_and_an_unknown_one() -> None:
    assert load_lexicon("") is NO_LEXICON
    assert not NO_LEXICON
    with pytest.raises(UserError, match="unknown lexicon 'paris'"):
        load_lexicon("paris")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"entries": [{"word": "rue", "category": "c"}, {"word": "rue", "category": "c"}]}', "'rue' is repeated"),
        ('{"entries": [{"word": " ", "category": "c"}]}', "blank"),
        ('{"entries": [{"word": "Rue", "category": "c"}]}', "lower-case letters"),
        ('{"entries": [{"word": "two words", "category": "c"}]}', "lower-case letters"),
        ('{"entries": [{"word": "rue"}]}', "cannot be read: KeyError"),
        ('{"entries": []}', "has no entries"),
        ("not json", "cannot be read"),
    ],
)
def test_lexicons_that_cannot_be_used(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "own.json"
    path.write_text(content)
    with pytest.raises(UserError, match=what) as caught:
        load_lexicon(str(path))
    assert "own.json" in (caught.value.where or "")


def test_a_lexicon_of_ones_own_with_accents(tmp_path: Path, training_texts: list[str]) -> None:
    path = tmp_path / "french.json"
    path.write_text('{"entries": [{"word": "été", "category": "saisons"}, {"word": "œuvre", "category": "arts"}]}')
    lexicon = load_lexicon(str(path))
    for algorithm in ("bpe", "wordpiece", "unigram"):
        settings = TrainingSettings(vocab_size=700, algorithm=algorithm, lexicon=lexicon)
        tokenizer = train_tokenizer(training_texts, settings=settings)
        for form in ("été", "Été", " été", " Été", "œuvre", "Œuvre", " œuvre", " Œuvre"):
            (id,) = tokenizer.encode(form)
            assert tokenizer.decode([id]) == form
