import gzip
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from held_out_documents import held_out_documents
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import document, prose

from caslon.corpus.collect import raw_files
from caslon.corpus.document import Document, Reject
from caslon.corpus.language import classify, is_plainly_english, language, letters
from caslon.corpus.read import read
from caslon.corpus.registry import load_sources
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


ARABIC = (
    "خرج التاجر من بيته في الصباح الباكر وسار في شوارع المدينة القديمة.",
    "كان السوق مزدحما بالناس الذين جاؤوا من القرى البعيدة لبيع القمح والزيت.",
    "جلس الشيخ قرب النهر يحكي للأطفال حكاية الملك والصياد الفقير.",
    "عبرت السفينة البحر في ثلاثة أيام ثم وصلت إلى الميناء عند غروب الشمس.",
    "قالت الأم لابنها إن العلم خير من المال وإن الصبر مفتاح الفرج.",
    "في الليل أضاءت المصابيح الطرقات وعاد الحراس إلى أبواب القلعة.",
    "زرع الفلاح الأرض ثم انتظر المطر حتى اخضرت الحقول كلها.",
    "كتب القاضي رسالة طويلة إلى الوالي يسأله عن حقوق الفقراء.",
    "بنى العمال جسرا من الحجر فوق النهر ليعبر الناس والدواب.",
    "سمع المسافرون صوت الريح بين الجبال فأسرعوا إلى القرية.",
)
CHINESE = (
    "清晨，商人离开家门，沿着古老的街道慢慢走向市场。",
    "市场里挤满了从远方村庄来卖粮食和布匹的人们。",
    "老人坐在河边，给孩子们讲国王和渔夫的故事。",
    "那条大船在海上航行了三天，日落时分终于到达港口。",
    "母亲告诉儿子，读书比金钱更重要，忍耐会带来好运。",
    "夜里灯笼照亮了道路，守卫们回到了城门旁边。",
    "农夫种下种子，等待雨水，直到田野变成一片绿色。",
    "法官写了一封很长的信，向总督询问穷人的权利。",
    "工匠们用石头在河上修建桥梁，方便行人和车马通过。",
    "旅客听见山谷里的风声，便急忙赶往前面的村子。",
)
REJECTED_SHARE = 0.98
KEPT_SHARE = 0.99


def documents_of(sentences: tuple[str, ...], count: int = 50) -> Iterator[str]:
    """Yield texts of 500 characters or more out of sentences in chance order."""
    numbers = random.Random(4)
    for _ in range(count):
        text = ""
        while len(text) < 500:
            text += "".join(numbers.sample(sentences, len(sentences)))
        yield text


def passages(lines: list[str], characters: int = 500, count: int = 100) -> list[str]:
    """Return texts of lines that follow each other, of 500 characters or little more."""
    found, text = [], ""
    for line in lines:
        text = f"{text}\n{line.strip()}" if text else line.strip()
        if len(text) >= characters:
            found.append(text)
            text = ""
        if len(found) == count:
            break
    return found


def share_rejected(texts: list[str]) -> float:
    return sum(isinstance(language(document(text), SETTINGS), Reject) for text in texts) / len(texts)


@pytest.mark.parametrize("sentences", [ARABIC, CHINESE], ids=["Arabic", "Chinese"])
def test_other_scripts_are_rejected(sentences: tuple[str, ...]) -> None:
    texts = list(documents_of(sentences))
    assert all(len(text) >= 500 for text in texts)
    assert share_rejected(texts) >= REJECTED_SHARE


@pytest.mark.parametrize("code", ["de", "fr"])
def test_german_and_french_captions_are_rejected_and_their_english_is_kept(real_data: Path, code: str) -> None:
    def texts(name: str) -> list[str]:
        with gzip.open(real_data / "qa" / "multi30k" / f"test2016.{name}.gz", "rt", encoding="utf-8") as file:
            return passages(file.readlines())

    assert share_rejected(texts(code)) >= REJECTED_SHARE
    assert share_rejected(texts("en")) == 0.0


@pytest.mark.parametrize("code", ["de", "es"])
def test_german_and_spanish_articles_are_rejected(real_data: Path, code: str) -> None:
    with gzip.open(real_data / "qa" / "xquad" / f"xquad.{code}.json.gz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    texts = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    assert share_rejected([text for text in texts if len(text) >= 500]) >= REJECTED_SHARE


def segments(found: Document, characters: int = 500) -> Iterator[str]:
    yield from passages(found.text.split("\n"), characters, 10_000)


def test_segments_of_the_samples_are_kept(real_data: Path) -> None:
    folder = real_data / "london" / "sample"
    texts = [
        text for path in folder.glob("*.txt") for text in passages(path.read_text("utf-8").split("\n"), count=10_000)
    ]
    assert len(texts) > 300
    assert 1 - share_rejected(texts) >= KEPT_SHARE


@pytest.mark.slow
@pytest.mark.parametrize("source", ["eebo-tcp", "ecco-tcp-txt", "oldbailey-ordinary"])
def test_segments_of_four_centuries_are_kept(real_data: Path, source: str) -> None:
    texts = [text for found in held_out_documents(real_data, 1_500_000, source) for text in segments(found)]
    assert len(texts) > 400
    assert 1 - share_rejected(texts) >= KEPT_SHARE


@pytest.mark.slow
def test_foreign_books_are_rejected(real_data: Path) -> None:
    """Each book is cut into documents of 5,000 characters, for there are few books."""
    facts = json.loads((real_data / "london" / "sources.json").read_text("utf-8"))["files"]
    languages = {row["path"]: row.get("lang", "") for row in facts}
    entries = load_sources(str(real_data / "london"), real_data, roles=("negative",), only=("negatives",))
    seen: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for raw in raw_files(entries):
        code = {"fre": "fra"}.get(languages[raw.member], languages[raw.member])
        if code not in ("deu", "fra", "fin", "swe", "por", "nld", "wel"):
            continue
        for item in read(raw):
            if isinstance(item, Document):
                texts = passages(item.text.split("\n"), 5000, 60)
                seen[code] += len(texts)
                rejected[code] += round(share_rejected(texts) * len(texts)) if texts else 0
    assert {"deu", "fra", "fin", "swe", "por"} <= seen.keys()
    for code, count in seen.items():
        assert rejected[code] >= REJECTED_SHARE * count, (code, rejected[code], count)


def test_commonest_words_tell_english_of_every_century_and_nothing_else() -> None:
    for text in (prose(3)[:600], EARLY_ENGLISH * 3):
        assert is_plainly_english(text)
    for text in (
        GERMAN * 6,
        FRENCH * 6,
        "".join(ARABIC),
        "".join(CHINESE),
        "the",
        "",
        "in was is of had of " * 2 + "de het " * 40,
    ):
        assert not is_plainly_english(text)


def test_lingua_can_judge_instead() -> None:
    pytest.importorskip("lingua")
    assert classify(GERMAN * 3, "lingua") == "de"
    assert classify("1234", "lingua") == "zxx"
    assert isinstance(language(document(FRENCH * 8), SETTINGS, detector="lingua"), Reject)
