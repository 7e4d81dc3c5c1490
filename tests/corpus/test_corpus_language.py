from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import document, prose

from caslon.corpus.document import Document, Reject
from caslon.corpus.language import language, letters
from caslon.corpus.settings import CorpusSettings

SETTINGS = CorpusSettings()
GERMAN = "Der alte König ging am frühen Morgen durch die Stadt und sah die Schiffe auf dem breiten Flusse liegen. "
FRENCH = "Le vieux roi se promenait de bon matin dans la ville et regardait les navires sur le grand fleuve. "
EARLY_ENGLISH = (
    "And whan the kynge had herde these wordes he was sore troubled, and sayd vnto his lordes that they sholde make them redy "
    "to ryde with hym to the cyte of London, for there he wold holde a grete counseyle of all the barons of the reame. "
)


def test_english_of_four_centuries_is_kept() -> None:
    for text in (prose(1), EARLY_ENGLISH * 4):
        kept = language(document(text), SETTINGS)
        assert isinstance(kept, Document)
        assert kept.scores["language_share"] == 1.0
        assert kept.metadata["language_shares"] == {"en": 1.0}


@pytest.mark.parametrize("text", [GERMAN * 8, FRENCH * 8])
def test_other_languages_are_rejected_with_the_evidence(text: str) -> None:
    found = language(document(text), SETTINGS)
    assert isinstance(found, Reject)
    assert found.code == "wrong_language"
    assert found.metadata["language_shares"]
    assert found.text == text


def test_other_languages_can_be_wanted() -> None:
    assert isinstance(language(document(GERMAN * 8), CorpusSettings(languages=("de",))), Document)
    assert isinstance(language(document(GERMAN * 8), CorpusSettings(languages=())), Document)


def test_a_mixed_text_is_kept_with_its_foreign_paragraphs_marked_or_dropped() -> None:
    text = "\n\n".join([prose(1, 6), *[GERMAN * 8] * 3, prose(2, 2)])
    marked = language(document(text), SETTINGS)
    assert isinstance(marked, Document)
    assert 0.3 <= marked.scores["language_share"] < 0.8
    assert {marked.blocks[number].text[:3] for number in marked.metadata["foreign_blocks"]} == {"Der"}
    dropped = language(document(text), CorpusSettings(foreign_paragraphs="drop"))
    assert isinstance(dropped, Document)
    assert "König" not in dropped.text
    assert {removal.code for removal in dropped.removals} == {"foreign_paragraph"}


def test_short_texts_are_believed_to_be_in_their_sources_language() -> None:
    short = document("Ein kurzer Satz ohne Beweis.")
    assert isinstance(language(short, SETTINGS), Document)
    german = replace(short, metadata={"languages": ("de",)})
    assert isinstance(language(german, SETTINGS), Reject)


def test_code_is_not_judged() -> None:
    assert language(document(GERMAN * 8, tier="code"), SETTINGS) == document(GERMAN * 8, tier="code")


def test_letters_counts_letters() -> None:
    assert letters("a1 b-ç") == 3


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=1500))
def test_language_raises_on_no_text(text: str) -> None:
    assert isinstance(language(document(text), SETTINGS), Document | Reject)
