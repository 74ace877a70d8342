"""The hash by which `kubeadm join` pins a cluster's CA: sha256 of the certificate's public key.

kubeadm's documentation takes it with openssl, which a host need not have. The public key's place in
an X.509 certificate is fixed, so a walk over a few ASN.1 lengths finds it, with no library at all.
"""

from __future__ import annotations

import base64
import hashlib
import re

from kitlib.errors import ParseError

__all__ = ["ca_hash"]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE = 0x30
_EXPLICIT_VERSION = 0xA0


def ca_hash(pem: str) -> str:
    """Return `sha256:<hex>` of the public key (SubjectPublicKeyInfo) of the first certificate.

    Raises:
        ParseError: There is no certificate in the text, or it is damaged.
    """
    block = _PEM.search(pem)
    if not block:
        raise ParseError("ca.crt: not a PEM certificate")
    try:
        der = base64.b64decode("".join(block[1].split()), validate=True)
        return "sha256:" + hashlib.sha256(_public_key(der)).hexdigest()
    except (ValueError, IndexError) as error:
        raise ParseError(f"ca.crt: a damaged certificate: {error}") from error


def _public_key(der: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a DER certificate, header included."""
    certificate, _ = _open(der, 0)
    at, _ = _open(der, certificate)  # TBSCertificate
    if der[at] == _EXPLICIT_VERSION:
        at = _after(der, at)
    for _ in ("serial number", "signature algorithm", "issuer", "validity", "subject"):
        at = _after(der, at)
    _open(der, at)
    return der[at : _after(der, at)]


def _open(der: bytes, at: int) -> tuple[int, int]:
    """Return where a SEQUENCE's content starts and ends."""
    if der[at] != _SEQUENCE:
        raise ValueError(f"no SEQUENCE at byte {at}")
    return _content(der, at)


def _after(der: bytes, at: int) -> int:
    return _content(der, at)[1]


def _content(der: bytes, at: int) -> tuple[int, int]:
    length, start = der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[start : start + count], "big")
        start += count
    if start + length > len(der):
        raise ValueError(f"cut short at byte {at}")
    return start, start + length
