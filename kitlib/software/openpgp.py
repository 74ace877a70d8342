"""The fingerprint of an OpenPGP public key file: what says whose key it is (RFC 4880, 6 and 12.2).

It is computed here because a minimal host has no gpg, and it is the kit that vouches for the key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

__all__ = ["fingerprint"]

_ARMOUR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\s*\n(?:[^\n:]+:[^\n]*\n)*\s*\n?(.+?)\n?(?:=[^\n]{4}\s*)?"
    r"-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_PUBLIC_KEY = 6


def fingerprint(armoured: str) -> str:
    """Return the fingerprint of the first key in a file, 40 hexadecimal digits in upper case.

    Raises:
        ValueError: The text is no armoured public key of version 4.
    """
    # One key a file: a second one would be trusted unseen.
    found = _ARMOUR.findall(armoured.replace("\r\n", "\n"))
    if len(found) != 1:
        raise ValueError("not one armoured OpenPGP public key")
    try:
        data = base64.b64decode("".join(found[0].split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not an armoured OpenPGP key: {error}") from error
    packets = list(_packets(data))
    if not packets or packets[0][0] != _PUBLIC_KEY:
        raise ValueError("it does not begin with a public key")
    if sum(kind == _PUBLIC_KEY for kind, _ in packets) != 1:
        raise ValueError("it holds more than one key")
    body = packets[0][1]
    if body[:1] != b"\x04":
        raise ValueError("not a key of version 4")
    framed = b"\x99" + len(body).to_bytes(2, "big") + body
    return hashlib.sha1(framed, usedforsecurity=False).hexdigest().upper()


def _packets(data: bytes) -> list[tuple[int, bytes]]:
    """Return (kind, body) of each packet."""
    found, at = [], 0
    while at < len(data):
        first = data[at]
        at += 1
        if not first & 0x80:
            raise ValueError("not OpenPGP packets")
        if first & 0x40:
            kind, (length, used) = first & 0x3F, _new_length(data, at)
        else:
            kind, size = (first >> 2) & 0x0F, (1, 2, 4, 0)[first & 3]
            length, used = int.from_bytes(data[at : at + size], "big"), size
            if not size:
                length = len(data) - at
        at += used
        if at + length > len(data):
            raise ValueError("an OpenPGP packet is cut short")
        found.append((kind, data[at : at + length]))
        at += length
    return found


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    head = data[at : at + 5]
    if len(head) > 0 and head[0] < 192:
        return head[0], 1
    if len(head) > 1 and head[0] < 224:
        return ((head[0] - 192) << 8) + head[1] + 192, 2
    if len(head) == 5 and head[0] == 255:
        return int.from_bytes(head[1:], "big"), 5
    raise ValueError("an OpenPGP packet of unknown length")
