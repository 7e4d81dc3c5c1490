import re

import pytest

from caslon.corpus.document import Document, Reject
from caslon.corpus.read import ReadSettings, raw_text, read

P5 = """<?xml version="1.0" encoding="UTF-8"?>
<TEI xmlns="http://www.tei-c.org/ns/1.0"><teiHeader><fileDesc><titleStmt><title>A Survay of London</title>
<author>Stow, John</author></titleStmt><editionStmt><edition><date>1598</date></edition></editionStmt>
<sourceDesc><bibl><date>1603, reprinted 1908</date></bibl></sourceDesc></fileDesc></teiHeader>
<text><body><div><head>Of the <hi>Riuers</hi></head>
<p>Thus the for<g ref="char:EOLhyphen"/>mer dayes were de<hi>liuered</hi><pb n="2"/>him, Calen\u2223dar and
 Geſpräch<note place="margin">In the margent.</note>, thou <gap reason="illegible" extent="1 word"><desc>?</desc></gap> art,
 of<choice><sic>teh</sic><corr> the </corr></choice>citie.</p>
<lg><l>When shall we three</l><l>meet againe?</l></lg>
<list><item><label>1.</label> Ale</item><label>2.</label><item>Beere</item></list>
<table><row><cell>St. Anne</cell><cell>12</cell></row><row><cell>St. Alban</cell><cell>9</cell></row></table>
<sp><speaker>Macbeth.</speaker><stage>Aside</stage><l>So foule</l><p>and faire.</p></sp>
<stage>Exeunt.</stage>
<castList><castItem><role>BIRON</role><roleDesc>a lord</roleDesc></castItem></castList></div></body></text></TEI>"""

P3 = """<?xml version="1.0"?>
<!DOCTYPE ETS SYSTEM "http://www.lib.umich.edu/tcp/docs/code/eebo2prf.xml.dtd">
<ETS><TEMPHEAD><NAME>Blaney</NAME></TEMPHEAD><EEBO><IDG S="marc" ID="K066800.000"><STC T="C">T081509</STC></IDG>
<TEXT><BODY><DIV1 TYPE="text"><HEAD>MIDAS.</HEAD><P>Consc<GAP DESC="illegible" DISP="•"/>ence &eacute;tats &unknown;</P>
<Q><L>One line</L><L>and two</L></Q></DIV1></BODY></TEXT></EEBO></ETS>"""

P4 = """<?xml version="1.0"?>
<!DOCTYPE TEI.2 PUBLIC "-//TEI P4//DTD Main DTD Driver File//EN" "http://www.tei-c.org/Guidelines/DTD/tei2.dtd" [
<!ENTITY e2 "ee">
<!ENTITY % TEI.XML "INCLUDE">
<!ENTITY % PersProse PUBLIC "-//Perseus P4//DTD Perseus Prose//EN" "http://www.perseus.tufts.edu/DTD/1.0/PersProse.dtd" >
%PersProse;
]>
<TEI.2><teiHeader><title>x</title>&responsibility;</teiHeader>
<text><body><p>King&e2;s &mdash; &aelig;</p></body></text></TEI.2>"""

TRIAL = """<div1 type="trialAccount" id="t{n}"><interp inst="t{n}" type="date" value="17401204"/>
<p>{n}. <persName id="t{n}-defend1" type="defendantName"> Lydia
   Atkins <interp inst="t{n}-defend1" type="surname" value="Atkins"/><interp inst="t{n}-defend1" type="given" value="Lydia"/>
   <interp inst="t{n}-defend1" type="gender" value="female"/></persName>
   , was indicted for <rs type="offenceDescription"><interp inst="o" type="offenceCategory" value="theft"/>stealing
   </rs> , value 5 s. <rs><interp inst="v" type="verdictCategory" value="guilty"/> Guilty </rs>.<note>[Death.]</note></p><p>.)
   <join result="x" targets="a b"/><xptr type="pageFacsimile" doc="1"/></p></div1>"""
SESSION = (
    '<?xml version="1.0" encoding="UTF-8"?><TEI.2><text><body><div0 type="sessionsPaper" id="17401204">'
    '<interp inst="17401204" type="date" value="17401204"/><div1 type="frontMatter" id="f1"><p>THE PROCEEDINGS</p></div1>'
    + TRIAL.format(n=1) + TRIAL.format(n=2)
    + '<div1 type="punishmentSummary" id="s1"><p>Death: 2</p></div1></div0></body></text></TEI.2>'
)  # fmt: skip


def only(found: list) -> Document:
    (document,) = found
    assert isinstance(document, Document), document
    return document


def test_p5_blocks(make_raw) -> None:
    document = only(list(read(make_raw(P5, "stow.xml"))))
    assert [block.text for block in document.blocks] == [
        "Of the Riuers",
        "Thus the former dayes were deliuered him, Calendar and Geſpräch, thou [...] art, of the citie.",
        "When shall we three\nmeet againe?",
        "1. Ale\n2. Beere",
        "St. Anne 12\nSt. Alban 9",
        "Macbeth.\nAside\nSo foule\nand faire.",
        "Exeunt.",
        "BIRON a lord",
    ]
    assert (document.title, document.year) == ("A Survay of London", 1603)
    assert document.metadata["author"] == "Stow, John"
    assert [note[1] for note in document.metadata["notes"]] == ["In the margent."]


def test_blocks_and_notes_know_their_place(make_raw) -> None:
    raw = make_raw(P5)
    document = only(list(read(raw)))
    text = raw_text(raw)
    for block in document.blocks:
        passage = re.sub(r"<[^>]*>", "", text[block.start : block.end])
        assert block.text.split()[0] in passage
        assert block.text.split()[-1] in passage
    assert text[document.metadata["notes"][0][0] :].startswith("<note place")


def test_upper_case_p3_and_unknown_entities(make_raw) -> None:
    document = only(list(read(make_raw(P3))))
    assert document.text == "MIDAS.\n\nConsc[...]ence états [...]\n\nOne line\nand two"
    assert document.metadata["unknown_entities"] == {"unknown": 1}


def test_outside_dtd_is_passed_over(make_raw) -> None:
    assert only(list(read(make_raw(P4)))).text == "Kingees — æ"


def test_gap_mark_is_a_setting(make_raw) -> None:
    document = only(list(read(make_raw(P3), ReadSettings(gap_mark="…"))))
    assert "Consc…ence" in document.text


def test_old_bailey_gives_a_document_per_record(make_raw) -> None:
    found = list(read(make_raw(SESSION)))
    documents = [item for item in found if isinstance(item, Document)]
    assert [document.origin.record for document in documents] == ["f1", "t1", "t2"]
    trial = documents[1]
    assert trial.text == "1. Lydia Atkins, was indicted for stealing, value 5 s. Guilty..)"
    assert (trial.title, trial.year, trial.group) == ("Trial of Lydia Atkins", 1740, "old-bailey:17401204")
    assert trial.metadata["offences"] == ["theft"]
    assert trial.metadata["verdicts"] == ["guilty"]
    assert trial.metadata["defendant_genders"] == ["female"]
    assert len({document.id for document in documents}) == 3
    (left,) = [item for item in found if isinstance(item, Reject)]
    assert (left.code, left.origin.record) == ("source_surplus", "s1")
    assert "Death: 2" in left.text


def test_old_bailey_records_are_a_switch(make_raw) -> None:
    settings = ReadSettings(old_bailey_records=("punishmentSummary",))
    documents = [item for item in read(make_raw(SESSION), settings) if isinstance(item, Document)]
    assert [document.origin.record for document in documents] == ["s1"]


def test_a_trial_inside_another_division_is_a_record_of_its_own(make_raw) -> None:
    nested = SESSION.replace("<p>Death: 2</p>", "<p>Death: 2</p>" + TRIAL.format(n=3) + "<p>Whipt: 1</p>")
    found = list(read(make_raw(nested)))
    assert [item.origin.record for item in found] == ["f1", "t1", "t2", "t3", "s1"]
    inline = SESSION.replace(
        "THE PROCEEDINGS", 'They called <div1 type="supplementaryMaterial" id="x">the Maid</div1>.'
    )
    assert next(read(make_raw(inline))).text == "They called the Maid."


def test_cut_off_session_keeps_its_whole_records(make_raw) -> None:
    cut = SESSION[: SESSION.index("2. <persName") + 150]
    found = list(read(make_raw(cut)))
    assert [item.origin.record for item in found if isinstance(item, Document)] == ["f1", "t1"]
    (rest,) = [item for item in found if isinstance(item, Reject)]
    assert rest.code == "malformed_xml"
    assert cut[rest.start : rest.end] == rest.text
    assert "2. <persName" in rest.text
    assert rest.metadata["offset"] >= rest.start


def test_cut_off_book_keeps_its_whole_blocks(make_raw) -> None:
    cut = P5[: P5.index("<table>") + 30]
    document, rest = read(make_raw(cut))
    assert isinstance(document, Document)
    assert document.blocks[-1].text == "1. Ale\n2. Beere"
    assert isinstance(rest, Reject)
    assert rest.id != document.id
    assert cut[rest.start :] == rest.text


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (
            '<!DOCTYPE TEI [<!ENTITY a "lol lol lol"><!ENTITY b "&a;&a;&a;&a;">]><TEI><text><p>&b;</p></text></TEI>',
            "unsafe_xml",
        ),
        ('<!DOCTYPE TEI [<!ENTITY s SYSTEM "file:///etc/passwd">]><TEI><text><p>&s;</p></text></TEI>', "unsafe_xml"),
        ("<TEI>" * 2_000 + "</TEI>" * 2_000, "unsafe_xml"),
        ("<TEI>" + "<a>" * 20_000, "unsafe_xml"),
        ("<TEI><text><p>a & b</p></text></TEI>", "malformed_xml"),
        ('<?xml version="1.0"?><package/>', "unknown_type"),
        ('<?xml version="1.0"?><package><!-- </package>', "malformed_xml"),
    ],
)
def test_tricks_and_damage_are_rejected(make_raw, body: str, code: str) -> None:
    found = list(read(make_raw(body, "x.xml")))
    assert code in [item.code for item in found if isinstance(item, Reject)]
    assert not any("root:" in item.text for item in found)


def test_outside_entities_open_nothing(make_raw, tmp_path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    body = f'<!DOCTYPE TEI SYSTEM "{secret.as_uri()}" [<!ENTITY % p SYSTEM "{secret.as_uri()}"> %p;]>'
    (document,) = read(make_raw(f"{body}<TEI><text><p>words &s; here</p></text></TEI>"))
    assert "secret" not in document.text


def test_real_session_of_many_trials(real_data) -> None:
    path = real_data / "london" / "sample" / "oldbailey-sessions__16770711A.xml"
    if not path.is_file():
        pytest.skip("no sample of the sessions here")
    from caslon.corpus.collect import RawFile

    found = list(read(RawFile("test", path.name, "", path.read_bytes(), "0" * 64)))
    trials = [item for item in found if isinstance(item, Document) and item.metadata["record_kind"] == "trialAccount"]
    assert len(trials) == 8
    for trial in trials:
        assert not re.search(r"\s[,.;:!?]", trial.text)
        assert "trialAccount" not in trial.text


PAGE = """<page id="LMSMPS50001"><head>Middlesex Sessions</head><p>The Humble Petition of <name type="person" sex="f">Mary
 <hi>Stiles</hi></name> , <occupation>Widow</occupation> of <geo>St. Anne Soho</geo> , made on <date when="1726-01-10">the 10th
 of January</date> ; sheweth &amp; prays.</p></page>"""


def test_london_lives_names_stand_aside_and_never_in_the_text(make_raw) -> None:
    raw = make_raw(PAGE, "LMSMPS50001.xml", profile="london_lives")
    document = only(list(read(raw)))
    assert document.text == (
        "Middlesex Sessions\n\nThe Humble Petition of Mary Stiles, Widow of St. Anne Soho, made on the 10th of January; "
        "sheweth & prays."
    )
    found = document.metadata["annotations"]
    assert [(item["kind"], item["text"]) for item in found] == [
        ("name", "Mary Stiles"), ("occupation", "Widow"), ("geo", "St. Anne Soho"), ("date", "the 10th of January"),
    ]  # fmt: skip
    assert found[0]["attributes"] == {"type": "person", "sex": "f"}
    for item in found:
        assert raw_text(raw)[item["start"] : item["end"]].startswith(f"<{item['kind']}")
    assert "[" not in document.text


@pytest.mark.parametrize("known", [{"profile": "london_lives"}, {}])
def test_any_page_with_text_counts(make_raw, known: dict[str, str]) -> None:
    plain = "<page><header>St. Clement Danes</header><p>Received of the Overseers.</p></page>"
    document = only(list(read(make_raw(plain, "page.xml", **known))))
    assert document.text.endswith("Received of the Overseers.")
    assert "annotations" not in document.metadata


def test_a_page_without_paragraphs_counts_by_its_profile(make_raw) -> None:
    raw = make_raw("<leaf><ln>Received of</ln> <ln>the Overseers.</ln></leaf>", "page.xml", profile="london_lives")
    assert only(list(read(raw))).text == "Received of the Overseers."


def test_a_session_of_481_trials(make_raw) -> None:
    """481 documents and the front matter, no space before punctuation, no values of `interp` in the text."""
    head, first, second, *_ = re.split(r"(?=<div1)", SESSION)
    del second
    trials = "".join(first if n == 0 else TRIAL.format(n=n) for n in range(482))
    documents = list(read(make_raw(f"{head}{trials}</div0></body></text></TEI.2>")))
    _check_session(documents, 481)


def test_real_sessions_of_most_trials(real_data) -> None:
    """The session of 481 trials itself is not among the sessions here; these have 322 and 303."""
    import tarfile

    from caslon.corpus.collect import RawFile

    path = real_data / "london" / "oldbailey-sessions-3.tar.bz2"
    if not path.is_file():
        pytest.skip("no sessions here")
    with tarfile.open(path) as archive:
        wanted = [(info.name, archive.extractfile(info).read()) for info in archive if "1843" in info.name]
    assert any(data.count(b'type="trialAccount"') == 303 for _, data in wanted)
    for name, data in wanted:
        found = read(RawFile("test", name, "", data, "0" * 64))
        documents = [item for item in found if isinstance(item, Document)]
        _check_session(documents, data.count(b'type="trialAccount"'))
        text = "\n".join(document.text for document in documents)
        values = set(re.findall(rb'<interp[^>]* value="([a-z]+[A-Z]\w+)"', data))  # such as `simpleLarceny`
        assert values
        assert not [value for value in values if value.decode() in text]


def _check_session(documents: list[Document], trials: int) -> None:
    kinds = [document.metadata.get("record_kind") for document in documents]
    assert kinds.count("trialAccount") == trials
    assert kinds.count("frontMatter") == 1
    assert len({document.origin.record for document in documents}) == len(documents)
    assert not re.findall(r"\s[,.;:!?]", "\n".join(document.text for document in documents))


def test_no_two_documents_of_a_file_have_one_id(make_raw) -> None:
    found = list(read(make_raw(SESSION.replace('id="f1"', 'id="t1"'))))
    assert [item.origin.record for item in found if isinstance(item, Document)] == ["t1", "t1~2", "t2"]
    assert len({item.id for item in found}) == len(found)
