import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_documents import document

from caslon.corpus.document import Block, Document, Origin, Reject
from caslon.corpus.forget import Forget, plain_address
from caslon.errors import UserError

SHA256 = hashlib.sha256(b"raw").hexdigest()
ORIGIN = Origin("letters", "box/1.zip", "a.xml", "t17540116-4", SHA256)
LETTER = Document(ORIGIN, (Block("A private letter.", 0, 17),), metadata={"url": "https://Example.org/letters/1/"})


def load(folder: Path, text: str) -> Forget:
    path = folder / "forget.txt"
    path.write_text(text, encoding="utf-8")
    return Forget.load(path)


@pytest.mark.parametrize(
    "entry",
    [
        LETTER.id, LETTER.id.upper(), SHA256, SHA256[:16], ORIGIN.address, "box/1.zip!a.xml", "box/1.zip",
        "https://example.org/letters/1", "HTTPS://EXAMPLE.ORG/letters/1/  # asked for by letter",
    ],
)  # fmt: skip
def test_a_named_document_is_dropped_without_its_text(tmp_path: Path, entry: str) -> None:
    forget = load(tmp_path, f"# people who asked\n\n{entry}\n")
    found = forget.check(LETTER)
    assert isinstance(found, Reject)
    assert (found.code, found.text, found.metadata) == ("forgotten", "", {"characters": 17})
    assert found.id == LETTER.id
    assert len(forget) == 1


def test_other_documents_pass(tmp_path: Path) -> None:
    forget = load(tmp_path, "other.txt\nhttps://example.org/letters/2\nbox/1.zip!b.xml\n0123456789abcdef\n")
    assert forget.check(LETTER) is LETTER
    assert Forget.load("").check(LETTER) is LETTER
    assert len(Forget.load("")) == 0


def test_a_raw_file_is_known_before_it_is_read(tmp_path: Path, make_raw) -> None:  # type: ignore[no-untyped-def]
    raw = make_raw("secret", name="a.txt")
    found = load(tmp_path, raw.sha256[:16]).check_raw(raw)
    assert found is not None
    assert (found.text, found.metadata) == ("", {"bytes": 6})
    assert load(tmp_path, "b.txt").check_raw(raw) is None


def test_a_hash_that_can_never_match_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="15 digits") as caught:
        load(tmp_path, "a.txt\n0123456789abcde\n")
    assert "forget.txt:2" in str(caught.value)
    with pytest.raises(UserError, match="cannot read"):
        Forget.load(tmp_path / "none.txt")


@given(st.text(max_size=50), st.text(max_size=50))
def test_any_address_is_compared_in_its_plain_form(address: str, path: str) -> None:
    forget = Forget(addresses=frozenset({plain_address(address)}))
    found = forget.check(document("text", path=path))
    assert isinstance(found, Reject) is (plain_address(path) == plain_address(address))
