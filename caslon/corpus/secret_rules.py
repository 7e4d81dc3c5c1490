"""Text becomes the places of private keys and API tokens in it.

The rules are detect-secrets' (Yelp, Apache-2.0) whose tokens have a shape of their own, and some for newer tokens it does not
know. Its rules that guess by entropy or by the word before an equals sign are left out: they take prose for secrets. A
private key counts only with key material behind its heading, since manuals print the heading alone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module

# A look that costs little and finds nearly nothing in prose; the rules that name it are tried only where it finds something.
UNDERSCORE = r"_[A-Za-z0-9_-]{16}"
HYPHEN = r"-[A-Za-z0-9][A-Za-z0-9_-]{15}"
# module and class in detect_secrets.plugins -> looks
DETECT_SECRETS_RULES: dict[tuple[str, str], tuple[str, ...]] = {
    ("aws", "AWSKeyDetector"): (r"A(?:3T|KIA|BIA|CCA|SIA)[0-9A-Z]{13}", "ccess_key", "CCESS_KEY", "ccessKey"),
    ("azure_storage_key", "AzureStorageKeyDetector"): ("AccountKey=",),
    ("discord", "DiscordBotTokenDetector"): (r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27}",),
    ("github_token", "GitHubTokenDetector"): (UNDERSCORE,),
    ("gitlab_token", "GitLabTokenDetector"): (HYPHEN, "GR1348941"),
    ("jwt", "JwtTokenDetector"): ("eyJ",),
    ("mailchimp", "MailchimpDetector"): (r"-us\d",),
    ("openai", "OpenAIDetector"): ("T3BlbkFJ",),
    ("pypi_token", "PypiTokenDetector"): ("pypi-Ag",),
    ("sendgrid", "SendGridDetector"): (r"SG\.[A-Za-z0-9_-]{22}",),
    ("slack", "SlackDetector"): (r"xox[a-z]-", r"hooks\.slack\.com"),
    ("square_oauth", "SquareOAuthDetector"): ("sq0csp-",),
    ("stripe", "StripeDetector"): (UNDERSCORE,),
    ("telegram_token", "TelegramBotTokenDetector"): (r":[A-Za-z0-9_-]{35}",),
    ("twilio", "TwilioKeyDetector"): (r"AC[a-z0-9]{32}", r"SK[a-z0-9]{32}"),
}
# Prefixes as their makers document them.
NEWER_RULES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("Anthropic API key", (HYPHEN,), r"sk-ant-[A-Za-z0-9_-]{20,}"),
    ("GitHub fine-grained token", (UNDERSCORE,), r"github_pat_[A-Za-z0-9_]{22,}"),
    ("Google API key", ("AIza",), r"AIza[0-9A-Za-z_-]{35}"),
    ("Hugging Face token", (UNDERSCORE,), r"hf_[A-Za-z0-9]{30,}"),
    ("OpenAI API key", (HYPHEN,), r"sk-(?:proj-[A-Za-z0-9_-]{40,}|[A-Za-z0-9]{32,})"),
    ("Slack token", (r"xox[a-z]-", "xapp-"), r"(?:xox[a-z]|xapp)-[A-Za-z0-9-]{24,}"),
    ("Stripe test key", (UNDERSCORE,), r"[rs]k_test_[0-9a-zA-Z]{24,}"),
    ("npm token", (UNDERSCORE,), r"npm_[A-Za-z0-9]{36}"),
)
PRIVATE_KEY = "private key"
KEY_MATERIAL_WITHIN = 400  # characters from the heading of a private key to its first base64

_KEY_HEADING = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d")
_KEY_MATERIAL = re.compile(r"[A-Za-z0-9+/=]{16,}")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-MAC: \w+")


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    looks: tuple[re.Pattern[str], ...]
    patterns: tuple[re.Pattern[str], ...]


def secret_ranges(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield `(start, end, rule)` of each secret, in the order of the rules; ranges may overlap."""
    if "PRIVATE KEY" in text or "PuTTY-User-Key" in text:
        yield from _private_keys(text)
    seen: dict[re.Pattern[str], bool] = {}
    for rule in _rules():
        for look in rule.looks:
            if look not in seen:
                seen[look] = look.search(text) is not None
        if any(seen[look] for look in rule.looks):
            for pattern in rule.patterns:
                for found in pattern.finditer(text):
                    if _stands_alone(text, found.start()) and _is_formally_valid(rule, found[0]):
                        yield found.start(), found.end(), rule.name


def _private_keys(text: str) -> Iterator[tuple[int, int, str]]:
    for heading in _KEY_HEADING.finditer(text):
        material = _KEY_MATERIAL.search(text, heading.end(), heading.end() + KEY_MATERIAL_WITHIN)
        if material:
            end = _KEY_END.search(text, material.end())
            following = _KEY_HEADING.search(text, material.end())
            closed = end is not None and (following is None or end.start() < following.start())
            yield heading.start(), end.end() if end and closed else material.end(), PRIVATE_KEY


def _stands_alone(text: str, start: int) -> bool:
    """Return whether a token begins here, rather than in the middle of base64 of something else."""
    return start == 0 or not (text[start - 1].isalnum() and text[start].isalnum())


def _is_formally_valid(rule: _Rule, value: str) -> bool:
    if rule.name != "JSON Web Token":
        return True
    from detect_secrets.plugins.jwt import JwtTokenDetector

    return bool(JwtTokenDetector.is_formally_valid(value))


@cache
def _rules() -> tuple[_Rule, ...]:
    found = []
    for (module, name), looks in DETECT_SECRETS_RULES.items():
        plugin = getattr(import_module(f"detect_secrets.plugins.{module}"), name)
        found.append(_Rule(plugin.secret_type, tuple(map(re.compile, looks)), tuple(plugin.denylist)))
    found.extend(
        _Rule(name, tuple(map(re.compile, looks)), (re.compile(pattern),)) for name, looks, pattern in NEWER_RULES
    )
    return tuple(found)
