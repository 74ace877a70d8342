"""Certificates, keys and tokens, so that kubeadm's and the API's emulation share one set.

All PEM texts are `str`. Keys are EC P-256: making one takes microseconds, and every Kubernetes
client accepts them.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = dt.timedelta(days=1)
_SKEW = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    cert_pem: str
    key_pem: str


def new_key() -> str:
    """Return a new EC P-256 private key as PEM (PKCS #8, not encrypted)."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def public_pem(key_pem: str) -> str:
    """Return the public half of a private key as PEM (what kubeadm writes to sa.pub)."""
    public = _load_key(key_pem).public_key()
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def new_ca(cn: str, years: int = 10) -> KeyPair:
    """Return a new self-signed certificate authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(cn, ())
    usage = _key_usage(ca=True)
    cert = (
        _builder(name, name, key.public_key(), dt.timedelta(days=365 * years))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(cn)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(_cert_pem(cert), _key_pem(key))


def issue(
    ca: KeyPair,
    cn: str,
    orgs: Sequence[str] = (),
    sans_dns: Sequence[str] = (),
    sans_ip: Sequence[str] = (),
    *,
    server: bool = False,
    client: bool = False,
    key_pem: str | None = None,
    days: int = 365,
) -> KeyPair:
    """Return a certificate for `cn` (and its key, new unless `key_pem` is given)."""
    key_pem = key_pem or new_key()
    public = _load_key(key_pem).public_key()
    sans: list[x509.GeneralName] = [x509.DNSName(name) for name in sans_dns]
    sans += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in sans_ip]
    cert = _sign(ca, _name(cn, orgs), public, sans, _purposes(server, client), days)
    return KeyPair(cert, key_pem)


def reissue(ca: KeyPair, cert_pem: str, more: Sequence[str]) -> KeyPair:
    """Return a server certificate like another one, for further names and addresses."""
    old = x509.load_pem_x509_certificate(cert_pem.encode())
    sans = list(old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    for name in more:
        try:
            san: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            san = x509.DNSName(name)
        if san not in sans:
            sans.append(san)
    key_pem = new_key()
    public = _load_key(key_pem).public_key()
    cert = _sign(ca, old.subject, public, sans, _purposes(True, False), 365)
    return KeyPair(cert, key_pem)


def new_csr(cn: str, orgs: Sequence[str] = ()) -> tuple[str, str]:
    """Return a new private key and a certificate signing request for it, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(cn, orgs))
    csr = request.sign(key, hashes.SHA256())
    return _key_pem(key), csr.public_bytes(serialization.Encoding.PEM).decode()


def sign_csr(
    ca: KeyPair, csr_pem: str, *, server: bool = False, client: bool = True, days: int = 365
) -> str:
    """Return the certificate (PEM) that answers a signing request.

    Raises:
        ValueError: The request is not PEM or its own signature is wrong.
    """
    csr = x509.load_pem_x509_csr(csr_pem.encode())
    public = csr.public_key()
    if not csr.is_signature_valid:
        raise ValueError("certificate signing request: signature is not valid")
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ValueError("certificate signing request: only EC keys are supported")
    try:
        found = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        sans: list[x509.GeneralName] = list(found)
    except x509.ExtensionNotFound:
        sans = []
    return _sign(ca, csr.subject, public, sans, _purposes(server, client), days)


def csr_subject(csr_pem: str) -> tuple[str, tuple[str, ...]]:
    """Return the common name and the organizations that a signing request asks for."""
    return _subject(x509.load_pem_x509_csr(csr_pem.encode()).subject)


def cert_subject(cert_der: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the common name and the organizations of a DER certificate."""
    return _subject(x509.load_der_x509_certificate(cert_der).subject)


def ca_hash(cert_pem: str) -> str:
    """Return `sha256:<hex>` of a certificate's public key, as kubeadm join pins it."""
    public = x509.load_pem_x509_certificate(cert_pem.encode()).public_key()
    spki = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def kubeconfig(
    server: str,
    ca_pem: str,
    user: str,
    cluster: str = "kubernetes",
    *,
    cert_pem: str | None = None,
    key_pem: str | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """Return a kubeconfig as a dict, shaped as kubeadm writes it (credentials embedded)."""
    credentials: dict[str, str] = {}
    if cert_pem and key_pem:
        credentials["client-certificate-data"] = _b64(cert_pem)
        credentials["client-key-data"] = _b64(key_pem)
    if token:
        credentials["token"] = token
    context = f"{user}@{cluster}"
    entry = {"certificate-authority-data": _b64(ca_pem), "server": server}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": entry}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user}}],
        "current-context": context,
        "preferences": {},
        "users": [{"name": user, "user": credentials}],
    }


def jws_detached(content: str, token_id: str, token_secret: str) -> str:
    """Return the detached JWS (`header..signature`) that signs cluster-info for one token."""
    header = _b64url(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    return f"{header}..{_hs256(header, content, token_secret)}"


def jws_verify(jws: str, content: str, token_id: str, token_secret: str) -> bool:
    """Return whether a detached JWS was made for this content by this bootstrap token."""
    header, _, rest = jws.partition(".")
    payload, _, signature = rest.partition(".")
    try:
        fields = json.loads(_unb64url(header))
    except ValueError:
        return False
    if payload or not isinstance(fields, dict):
        return False
    if fields.get("alg") != "HS256" or fields.get("kid") != token_id:
        return False
    return hmac.compare_digest(signature, _hs256(header, content, token_secret))


def jwt_sign(key_pem: str, claims: dict[str, Any]) -> str:
    """Return an ES256 token over `claims`, as the API issues for service accounts."""
    head = _b64url(json.dumps({"alg": "ES256", "typ": "JWT"}, separators=(",", ":")).encode())
    signed = f"{head}.{_b64url(json.dumps(claims, separators=(',', ':')).encode())}"
    der = _load_key(key_pem).sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(der)
    return f"{signed}.{_b64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def jwt_claims(public: str, token: str) -> dict[str, Any] | None:
    """Return the claims of an ES256 token, or None when `public` (PEM) did not sign it."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    key = serialization.load_pem_public_key(public.encode())
    try:
        raw = _unb64url(parts[2])
        der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return None
        key.verify(der, f"{parts[0]}.{parts[1]}".encode(), ec.ECDSA(hashes.SHA256()))
        claims = json.loads(_unb64url(parts[1]))
    except (InvalidSignature, ValueError):
        return None
    return claims if isinstance(claims, dict) else None


def _sign(
    ca: KeyPair,
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    sans: Sequence[x509.GeneralName],
    purposes: Iterable[x509.ObjectIdentifier],
    days: int,
) -> str:
    """Return a leaf certificate (PEM) signed by `ca`."""
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.encode())
    ca_key = _load_key(ca.key_pem)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = (
        _builder(subject, issuer.subject, public, days * _DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(authority, critical=False)
    )
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    return _cert_pem(builder.sign(ca_key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, life: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _purposes(server: bool, client: bool) -> list[x509.ObjectIdentifier]:
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] if server else []
    return purposes + ([ExtendedKeyUsageOID.CLIENT_AUTH] if client or not server else [])


def _name(cn: str, orgs: Sequence[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, org) for org in orgs]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def _subject(name: x509.Name) -> tuple[str, tuple[str, ...]]:
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    orgs = name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return (str(common[0].value) if common else "", tuple(str(org.value) for org in orgs))


def _load_key(key_pem: str) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("private key: only EC keys are supported")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _cert_pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(serialization.Encoding.PEM).decode()


def _hs256(header: str, content: str, secret: str) -> str:
    signed = f"{header}.{_b64url(content.encode())}"
    return _b64url(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
