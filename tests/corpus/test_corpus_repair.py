from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from caslon.corpus.document import Block, Document, Origin
from caslon.corpus.lexicon import Lexicon
from caslon.corpus.repair import MAY_BE_MOJIBAKE, UNUSUAL, _is_plain, _once, normalised, repair


def document(*texts: str, tier: str = "general", **metadata: object) -> Document:
    blocks = tuple(Block(text, 10 * at, 10 * at + 9) for at, text in enumerate(texts))
    return Document(Origin("test", "a.txt"), blocks, tier=tier, metadata=metadata)


def test_line_ends_and_controls_are_cleaned_and_counted() -> None:
    fixed = repair(document("\ufeffone\r\ntwo\rthree\x00\x07", "\x00\x00"))
    assert [block.text for block in fixed.blocks] == ["one\ntwo\nthree"]
    assert fixed.metadata["repairs"] == {"control_characters": 5, "line_ends": 2}


def test_mojibake_is_repaired_only_where_errors_become_fewer() -> None:
    good = "Naïve café — “quoted” • bullet… ſaid £10"
    assert normalised(good) == good
    bad = "He said â€œyesâ€\x9d â€” twiceâ€¦ at the cafÃ©"
    assert normalised(bad) == "He said “yes” — twice… at the café"
    assert normalised("Ã la carte, señor") in ("Ã la carte, señor", "à la carte, señor")


def test_accents_ligatures_money_and_ordinals_stay() -> None:
    text = "Cæsar, œconomy, 10s. 6d., £5, the 2d and 1st, ½, ‘quoted’ “so”, é"
    assert normalised(text, long_s="modern") == text
    assert normalised("e\u0301") == "é"


def test_hyphens_of_the_transcription_join_and_real_ones_stay() -> None:
    assert (
        normalised("Calen∣dar fa\u00admous re∣\n  turn well-known a ∣ b") == "Calendar famous return well-known a ∣ b"
    )


def test_a_word_cut_by_a_lines_end_is_joined_where_the_list_knows_it_without_hyphen_only() -> None:
    assert normalised("on the other-\nwise men, Lon-\n  don, ſhip-\nping") == "on the otherwise men, London, ſhipping"
    for kept in ("a well-\nknown man", "q-\nz", "e'er-\nY where", "to-\nday", "xyzzy-\nplugh"):
        assert normalised(kept) == kept
    words = Lexicon({"xyzzyplugh": 5, "otherwise": 5, "other-wise": 5})
    assert normalised("xyzzy-\nplugh other-\nwise", lexicon=words) == "xyzzyplugh other-\nwise"
    assert repair(document("other-\nwise")).metadata["repairs"] == {"joined_words": 1}


def test_long_s_modern_or_kept() -> None:
    assert normalised("ſhe ſaid ﬁve oﬀers of beﬅ ﬂour", long_s="modern") == "she said five offers of best flour"
    assert normalised("ſhe ſaid", long_s="keep") == "ſhe ſaid"


def test_spaces_and_breaks() -> None:
    assert normalised("a \t b\u00a0\u00a0c  \n\n\n\n d ") == "a b c\n\nd"


def test_indentation_stays_where_it_has_a_meaning() -> None:
    text = "Use it so:\n    >>> for x  in y:\n    ...     print(x)"
    fixed = repair(document(text, type="python"))
    assert fixed.blocks[0].text == text
    assert repair(document(text)).blocks[0].text == "Use it so:\n>>> for x in y:\n... print(x)"


def test_long_lines_are_cut_at_sentences_and_else_hard() -> None:
    sentence = "Mr. Smith of St. Giles, Esq. went home with 3 l. 4 s. and &c. was content. "
    lines = normalised(sentence * 100).split("\n")
    assert all(len(line) <= 2000 for line in lines)
    assert all(line.endswith("content.") for line in lines)
    one = repair(document("x" * 5000))
    assert [len(line) for line in one.text.split("\n")] == [2000, 2000, 1000]
    assert one.metadata["repairs"]["hard_cuts"] == 2


def test_code_keeps_everything_but_line_ends_nul_and_bom() -> None:
    source = "\ufeffdef f():\r\n\treturn 'ſ  \u00ad\x0c'  \r\n\x00" + "y" * 3000
    fixed = repair(document(source, tier="code"), long_s="modern")
    assert fixed.text == "def f():\n\treturn 'ſ  \u00ad\x0c'  \n" + "y" * 3000


def test_ranges_in_the_raw_text_stay() -> None:
    fixed = repair(document("one", " ", "three"))
    assert [(block.start, block.end) for block in fixed.blocks] == [(0, 9), (20, 29)]


ALPHABET = st.one_of(
    st.characters(exclude_categories=("Cs",)),
    st.sampled_from("\r\n\t\x00\u00ad∣ſﬁâ€™Ã©\u0301\ufeff\u0085¬ -aB.\u2028\u00a0"),
)


@settings(max_examples=300, deadline=None)
@given(st.text(ALPHABET, max_size=80), st.sampled_from(["modern", "keep"]), st.booleans())
@example("â€\u00ad™\u00adx", "keep", False)
@example("Ã\u200b©", "modern", False)
def test_applying_it_twice_changes_nothing_more(text: str, long_s: str, indented: bool) -> None:
    once = normalised(text, long_s=long_s, indented=indented)  # type: ignore[arg-type]
    assert normalised(once, long_s=long_s, indented=indented) == once  # type: ignore[arg-type]


USUAL = "aZ e.,\n—–‘’“”…£§°½¼¾†‡•éèÀÃÂÖßœŒñç"


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("aB .\x80\x9dÃÂâ€™œ“”‚„£°²³¡ØÙÐ×√≈ВГβ¿ŠŸ\xa0\xadàé"), max_size=12))
def test_the_quick_look_misses_no_mojibake(text: str) -> None:
    from ftfy.badness import is_bad

    assert not is_bad(text) or MAY_BE_MOJIBAKE.search(text)


@settings(max_examples=120, deadline=None)
@given(st.text(st.sampled_from(USUAL), max_size=60))
def test_what_looks_plain_is_changed_by_no_step(text: str) -> None:
    assert not UNUSUAL.search(text)
    counts: Counter[str] = Counter()
    assert not _is_plain(text) or (_once(text, "modern", False, None, counts) == text and not counts)


@settings(max_examples=20, deadline=None)
@given(st.text(st.sampled_from("ab. ,;\n"), min_size=2000, max_size=5000))
def test_long_lines_too(text: str) -> None:
    once = repair(document(text))
    assert repair(once) == once
    assert all(len(line) <= 2000 for line in once.text.split("\n"))
