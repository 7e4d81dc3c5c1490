"""Text becomes the places of personal data in it: addresses, numbers and credentials, each proved by its own check.

A number is masked only with evidence: IBANs and cards by their check digits, telephones by the numbering plan of their
country (libphonenumber), addresses of machines by their form. Bare numbers of any length stay, since historical text is full of
years, prices and shelf marks. Everything works offline. Names of persons need the extra `names` (presidio).
"""

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from caslon.corpus.secret_rules import secret_ranges
from caslon.errors import UserError

KINDS = ("secret", "url_credentials", "email", "iban", "card", "ip", "ni", "phone", "name")  # the first wins an overlap
NAME_MODEL = "en_core_web_lg"  # presidio's default for English
MINIMUM_NAME_SCORE = 0.6
BEFORE_CUE = 80  # characters: more than any kind of data has before its cue (an address before its @)
AFTER_CUE = 300  # and after it (a host's name)
CUE_CHARACTERS = 40  # how far before a number a word such as "tel." is looked for

# Length of the IBAN by country (SWIFT IBAN registry).
IBAN_LENGTHS: Mapping[str, int] = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28, "CH": 21,
    "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27,
    "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MD": 24,
    "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29,
    "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24,
    "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip

_EMAIL = re.compile(r"(?<![\w.+%'-])[\w+%'-][\w.+%'-]{0,63}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])")
_URL_CREDENTIALS = re.compile(
    r"(?<![\w])[a-z][a-z0-9+.-]{1,20}://([^\s/?#:@<>\"']{0,128}:[^\s/<>\"']{1,128})@(?=[\w\[])"
    r"|[?&](?:access_token|api_?key|auth|client_secret|password|passwd|pwd|secret|sig|signature|token)=([^\s&#<>\"']{6,})",
    re.IGNORECASE,
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2})\d{2}(?=[ -]?[A-Z0-9])|(?<![A-Za-z0-9])([a-z]{2})\d{2}(?=[a-z0-9]{11})")
_IBAN_CHARACTER = re.compile(r"[ -]?([A-Za-z0-9])")
_CARD = re.compile(
    r"(?<![\w.,-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5}|\d{12,19})(?![\w-]|[.,]\d)"
)
# Issuers' first digits: Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay, Maestro.
_CARD_ISSUER = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})$|(?:5[1-5]|2[2-7])\d{14}$|3[47]\d{13}$|3(?:0[0-5]|[689]\d)\d{11,16}$|35\d{14,17}$"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12,15}$|62\d{14,17}$|(?:50|5[6-8]|6[0137])\d{10,17}$"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![\w.])(?:{_OCTET}\.){{3}}{_OCTET}(?![\w]|\.\w)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_VERSION_CUE = re.compile(  # also an abbreviated book of scripture: Rom. 14.3.11.12
    r"(?:\b(?:version|ver|v|release|section|sect|chapter|chap|cap|no|art|lib|book|vol|pages?|pp?|ff?)\.?|\b(?-i:[A-Z])[a-z]{1,5}\.)\s*$",
    re.IGNORECASE,
)
_ADDRESS_CUE = re.compile(
    r"(?:\b(?:ips?|ipv4|address(?:es)?|hosts?|servers?|dns|ping|gateway|from)\b.{0,12}|//)$", re.IGNORECASE
)
_NATIONAL_INSURANCE = re.compile(
    r"(?<!\w)(?!BG|GB|NK|KN|TN|NT|ZZ)(?:[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]|QQ)(?:([ -]?)\d{2}\1\d{2}\1\d{2}|[ -]\d{6})"
    r"[ -]?[A-D](?!\w)"
)
_PHONE = re.compile(
    r"(?<![\w.,/:#+-])(?:\(?\+)?\(?\d"
    r"(?:(?:[ \u00a0.\-/\u2010\u2011]|\)[ \u00a0]?|[ \u00a0]?\()?\d){6,16}"
)
_PHONE_CUE = re.compile(
    r"\b(?:tele?(?:phone)?|tel|phone|mobile|mob|cell|fax|whatsapp|call(?:\sme)?(?:\s(?:at|on))?|text\sme\s(?:at|on))\b\.?"
    r"(?:\s(?:no|number|nr)\b\.?)?(?:\sis)?[\s:=#]{0,3}$",
    re.IGNORECASE,
)
_NORTH_AMERICA = re.compile(r"(?:1[ .-])?(?:\([2-9]\d{2}\)[ .-]?|[2-9]\d{2}[.-])[2-9]\d{2}[ .-]\d{4}$")
_NATIONAL_FORM = re.compile(r"\(?0\d{2,4}\)?(?:[ \u00a0.\-/\u2010\u2011]{1,2}\d{3,8}){1,3}$|0\d{10}$")
_UNITED_KINGDOM = re.compile(r"0[1-357-9]\d{8,9}$")
_EXTENSION = re.compile(r"\s?(?:x|ext\.?)\s?\d{1,5}\b")
_GOES_ON = re.compile(r"(?!x\d)[^\W\d_]|\.\d")
_DECIMAL = re.compile(r"\+?\d+\.\d+$")
_DIGITS_END = re.compile(r"(?<=\d)(?!\d)")


@dataclass(frozen=True, slots=True)
class Finding:
    """A piece of personal data: its kind and half-open range. `rule` says which secret; it never holds the value."""

    kind: str
    start: int
    end: int
    rule: str = ""


def find(text: str, kinds: Collection[str]) -> list[Finding]:
    """Return what was found of these kinds, in the order of the text and without overlaps."""
    found: list[Finding] = []
    if "secret" in kinds:
        found += [Finding("secret", start, end, rule) for start, end, rule in secret_ranges(text)]
    if "name" in kinds:
        found += [Finding("name", start, end) for start, end in _names(text)]
    for cue, finders in _DETECTORS:
        wanted = [(kind, finder) for kind, finder in finders if kind in kinds]
        for low, high in _windows(cue, text) if wanted else ():
            found += [Finding(kind, *place) for kind, finder in wanted for place in finder(text, low, high)]
    return _without_overlaps(found)


def check_names_extra() -> None:
    """Raise `UserError` when names cannot be looked for: presidio or its language model is not installed."""
    _name_analyzer()


def _windows(cue: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    """Return the stretches of text around each cue; the rest need not be looked at by any detector."""
    windows: list[tuple[int, int]] = []
    for found in cue.finditer(text):
        low, high = max(found.start() - BEFORE_CUE, 0), found.end() + AFTER_CUE
        if windows and low <= windows[-1][1]:
            windows[-1] = (windows[-1][0], high)
        else:
            windows.append((low, high))
    return windows


def _without_overlaps(found: list[Finding]) -> list[Finding]:
    """Keep of two that overlap the kind that comes first in `KINDS`, of one kind the one that begins first or is longer."""
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda one: (one.start, -one.end)):
        if not kept or kept[-1].end <= finding.start:
            kept.append(finding)
        elif KINDS.index(finding.kind) < KINDS.index(kept[-1].kind):
            kept[-1] = finding
    return kept


def _emails(text: str, low: int, high: int) -> Iterator[tuple[int, int]]:
    for found in _EMAIL.finditer(text, low, high):
        if not found[0].partition("@")[0].endswith("."):
            yield found.span()


def _url_credentials(text: str, low: int, high: int) -> Iterator[tuple[int, int]]:
    for found in _URL_CREDENTIALS.finditer(text, low, high):
        yield found.span(found.lastindex or 0)


def _ibans(text: str, low: int, high: int) -> Iterator[tuple[int, int]]:
    for found in _IBAN.finditer(text, low, high):
        length = IBAN_LENGTHS.get((found[1] or found[2]).upper())
        end = _iban_end(text, found.start(), length) if length else None
        if end is not None:
            yield found.start(), end


def _iban_end(text: str, start: int, length: int) -> int | None:
    """Return where the IBAN that starts here ends, if its check digits are right (ISO 13616: 97 leaves 1)."""
    characters: list[str] = []
    position = start
    while len(characters) < length:
        found = _IBAN_CHARACTER.match(text, position)
        if not found:
            return None
        characters.append(found[1].upper())
        position = found.end()
    if text[position : position + 1].isalnum():
        return None
    moved = "".join(characters[4:] + characters[:4])
    return position if int("".join(str(int(character, 36)) for character in moved)) % 97 == 1 else None


def _cards(text: str, low: int, high: int) -> Iterator[tuple[int, int]]:
    for found in _CARD.finditer(text, low, high):
        digits = re.sub(r"\D", "", found[0])
        if _CARD_ISSUER.match(digits) and _luhn(digits):
            yield found.span()


def _luhn(digits: str) -> bool:
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(value - 9 if value > 9 else value for value in doubled)) % 10 == 0


def _ipv4_addresses(text: str, low: int, high: int) -> Iterator[tuple[int, int]]:
    for found in _IPV4.finditer(text, low, high):
        before = text[max(0, found.start() - CUE_CHARACTERS) : found.start()]
        octets = [int(octet) for octet in found[0].split(".")]
        if max(octets) < 10 and not _ADDRESS_CUE.search(before):
            continue  # a section or a version number as likely as an address
        if octets[0] not in {0, 127} and octets != [255] * 4 and not _VERSION_CUE.search(before):
            yield found.span()


def _ipv6_addresses(text: str, low: int, high: int) -> Iterator[tuple[int, int]]:
    for found in _IPV6.finditer(text, low, high):
        if _is_ipv6(found[0]):
            yield found.span()


def _is_ipv6(text: str) -> bool:
    """Return whether this is an address, not a time of day or two names in a program (`cafe::bad`)."""
    if len(text.partition(":")[0]) < 3 or not any(map(str.isdigit, text)):
        return False
    try:
        return not ipaddress.IPv6Address(text).is_loopback
    except ValueError:
        return False


def _national_insurance_numbers(text: str, low: int, high: int) -> Iterator[tuple[int, int]]:
    for found in _NATIONAL_INSURANCE.finditer(text, low, high):
        yield found.span()


def _phones(text: str, low: int, high: int) -> Iterator[tuple[int, int]]:
    position = low
    while found := _PHONE.search(text, position, high):
        start, end = found.span()
        position = end
        cue = _PHONE_CUE.search(text[max(0, start - CUE_CHARACTERS) : start]) is not None
        for last in sorted((match.start() + start for match in _DIGITS_END.finditer(found[0])), reverse=True):
            if _is_phone(text[start:last], cue=cue) and not _GOES_ON.match(text, last):
                extension = _EXTENSION.match(text, last)
                position = extension.end() if extension else last
                yield start, position
                break


def _is_phone(written: str, *, cue: bool) -> bool:
    digits = re.sub(r"\D", "", written)
    if not 7 <= len(digits) <= 17 or _DECIMAL.match(written):
        return False
    bare = written.replace(" ", "").lstrip("(")
    if bare.startswith("+"):
        return _is_possible("+" + digits, None)
    if re.match(r"00[1-9]\d{0,2}[ .\-/]", written) or (cue and digits.startswith("00")):
        return _is_possible("+" + digits[2:], None)
    if _NORTH_AMERICA.match(written):
        return True
    if _NATIONAL_FORM.match(written) and (_UNITED_KINGDOM.match(digits) or cue):
        return _is_possible(digits, "GB") or cue
    return cue and _is_possible(digits, "US" if len(digits) == 10 else "GB")


def _is_possible(number: str, region: str | None) -> bool:
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    return bool(phonenumbers.is_possible_number(parsed))


def _names(text: str) -> Iterator[tuple[int, int]]:
    analyzer = _name_analyzer()
    position = 0
    for paragraph in text.split("\n\n"):  # the tagger takes a million characters at most
        for result in analyzer.analyze(
            text=paragraph, language="en", entities=["PERSON"], score_threshold=MINIMUM_NAME_SCORE
        ):
            yield position + result.start, position + result.end
        position += len(paragraph) + 2


@cache
def _name_analyzer() -> Any:
    fix = f'pip install "caslon[names]" and the spaCy model {NAME_MODEL}, or set corpus.privacy.name = "off"'
    try:
        import presidio_analyzer
    except ModuleNotFoundError as error:
        raise UserError(f"names need the library '{error.name}' of the extra 'names'", fix=fix) from error
    if find_spec(NAME_MODEL) is None:  # presidio would download it
        raise UserError(f"names need the language model {NAME_MODEL}, which is not installed", fix=fix)
    return presidio_analyzer.AnalyzerEngine()


Finder = Callable[[str, int, int], Iterator[tuple[int, int]]]

# What a text must hold before the detectors beside it are tried around that place. One look for all that has digits.
_DETECTORS: tuple[tuple[re.Pattern[str], tuple[tuple[str, Finder], ...]], ...] = (
    (re.compile("@"), (("email", _emails),)),
    (re.compile(r"://|[?&]\w{2,20}="), (("url_credentials", _url_credentials),)),
    (re.compile(r":[0-9A-Fa-f]{0,4}:"), (("ip", _ipv6_addresses),)),
    (
        re.compile(r"\d[\d ().\-/\u00a0\u2010\u2011]{4,}\d"),
        (
            ("iban", _ibans),
            ("card", _cards),
            ("ip", _ipv4_addresses),
            ("ni", _national_insurance_numbers),
            ("phone", _phones),
        ),
    ),
)
