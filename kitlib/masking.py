"""What must never be kept or shown, and how it is taken out of text and data.

Two ways, both always on: every `Secret` that this process makes is remembered by its value, and
what tools print by themselves (a join command, a key, a kubeconfig) is known by its form.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

__all__ = ["MASK", "mask", "mask_text", "remember"]

MASK = "***"
SHORTEST = 4
"""Characters that a value must have to be looked for in text."""

# A dictionary's keys can be added and listed by several threads at once without a lock.
_remembered: dict[str, None] = {}


@dataclass(frozen=True, slots=True)
class _Form:
    """A form that secrets have in the tools' own output.

    Attributes:
        marks: One of these stands in every text of this form, in lower case: looking for them first
            spares most texts the pattern.
        pattern: What it looks like.
        shown: What is written in its place.
    """

    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    shown: str


def _form(marks: str, pattern: str, shown: str, flags: int = 0) -> _Form:
    return _Form(tuple(marks.split("|")), re.compile(pattern, flags), shown)


_FORMS = (
    _form(
        "private key",
        r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)",
        rf"-----BEGIN \1-----{MASK}",
        re.DOTALL,
    ),
    # a PEM in base64, as kubeconfigs and Secrets hold it, unless it is a certificate
    _form("ls0tls1crudjti", r"LS0tLS1CRUdJTi(?!BDRVJUSUZJQ0FUR)[A-Za-z0-9+/=]{20,}", MASK),
    # a bootstrap token
    _form(".", r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b", MASK),
    # a service account's token
    _form("eyj", r"\beyJ[\w-]{6,}\.eyJ[\w-]{6,}\.[\w-]*", MASK),
    _form("certificate key", r"(certificate key:\s+)[0-9a-f]{64}\b", rf"\1{MASK}", re.IGNORECASE),
    _form(
        "authorization",
        r"(authorization\W{1,4}(?:bearer|basic) +)[^\s\"']+",
        rf"\1{MASK}",
        re.IGNORECASE,
    ),
    _form("://", r"(://[^/\s:@\"']*:)[^/\s@\"']+@", rf"\1{MASK}@"),
    _form(
        "client-key-data|certificate-key|certificatekey|token|password",
        r"(?P<name>client-key-data|certificate-?key|token|password)"
        r"(?P<sep>\"?\s*[:=]\s*|\s+)(?P<value>\"?[A-Za-z0-9+/=._-]{16,}\"?)",
        rf"\g<name>\g<sep>{MASK}",
        re.IGNORECASE,
    ),
    # a password may be short, so only where it is plainly given, and not where a file is named so
    _form(
        "passw|passphrase",
        r"(?<!/)(?P<name>passw(?:or)?d|passphrase)(?P<sep>[\"']?\s*=\s*|[\"']?:\s+|[\"']:)"
        r"(?!\*\*\*)(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s\"',;}]+)",
        rf"\g<name>\g<sep>{MASK}",
        re.IGNORECASE,
    ),
)
_KEY_END = re.compile(r"-----END [A-Z ]*PRIVATE KEY-----")
_KEY_LINE = re.compile(r"[A-Za-z0-9+/=]+")
_SECRET_NAME = re.compile(
    r"(?i)(passw(or)?d|passphrase|secret|token|api_?key|private_?key|credential)s?$"
)


def remember(*values: str) -> None:
    """Have these values masked in all that this process shows or keeps from now on.

    Their base64 and URL-encoded forms are masked as well. A value of less than SHORTEST characters
    is left out: it stands in ordinary words too, and masking it there would give it away.
    """
    for value in values:
        if len(value) >= SHORTEST:
            _remembered.update(dict.fromkeys(_forms_of(value)))


def mask_text(text: str, known: Iterable[str] = ()) -> str:
    """Return `text` without secrets: remembered and `known` values, and what has a secret's form.

    Text without one comes back as it is.
    """
    for value in sorted({*list(_remembered), *known}, key=len, reverse=True):
        if value in text:
            text = text.replace(value, MASK)
    lower = text.lower()
    for form in _FORMS:
        if any(mark in lower for mark in form.marks):
            text = form.pattern.sub(form.shown, text)
    return _without_cut_keys(text) if _KEY_END.search(text) else text


def mask(value: Any) -> Any:
    """Return plain data (mappings, lists, text, numbers) without secrets.

    Beyond the text in it, masked are the contents of an API object of kind Secret, and an
    environment variable's value where its name says that it is one.
    """
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, Mapping):
        return _mask_mapping(value)
    if isinstance(value, list | tuple):
        return [mask(item) for item in value]
    return value


def _without_cut_keys(text: str) -> str:
    """Return text without the last lines of private keys whose beginning was cut off."""
    lines: list[str] = []
    for line in text.split("\n"):
        if _KEY_END.match(line.strip()):
            while lines and _KEY_LINE.fullmatch(lines[-1].strip()):
                lines.pop()
            lines.append(MASK)
        lines.append(line)
    return "\n".join(lines)


def _mask_mapping(value: Mapping[Any, Any]) -> dict[Any, Any]:
    hidden: tuple[str, ...] = ()
    if value.get("kind") == "Secret":
        hidden = ("data", "stringData")
    elif isinstance(value.get("value"), str) and _SECRET_NAME.search(str(value.get("name", ""))):
        hidden = ("value",)
    return {key: MASK if key in hidden else mask(item) for key, item in value.items()}


def _forms_of(value: str) -> tuple[str, ...]:
    return (value, quote(value, safe=""), base64.b64encode(value.encode()).decode())
