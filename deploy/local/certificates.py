"""A development certificate authority, and a certificate for each identity of the mesh."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.local.private_files import make_private_directory, write_private

_LIFETIME = timedelta(days=365)
_RENEWED_BEFORE_EXPIRY = timedelta(days=7)
# A clock that runs a little behind must not find the certificate to be of the future.
_CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where an identity's certificate, its key and the authority's certificate are, as PEM."""

    certificate: Path
    key: Path
    authority: Path


def issue_certificates(
    directory: Path, identities: Iterable[str], *, now: datetime
) -> dict[str, CertificateFiles]:
    """Make sure that each identity has a certificate, and say where the files are.

    A certificate is kept until a week before it expires; when the authority's own is as
    old, all are made anew. It names `spiffe://shoptrail/<identity>`, and as hosts the
    identity, `localhost` and 127.0.0.1, for clients and servers alike. Directory and files
    are readable by their owner only.
    """
    make_private_directory(directory)
    authority = directory / "authority.pem"
    authority_key = directory / "authority.key"
    signer = _read_pair(authority, authority_key, now=now)
    if signer is None:
        signer = _make_authority(now)
        _write_pair(authority, authority_key, signer)

    issued = {}
    for identity in identities:
        files = CertificateFiles(
            certificate=directory / f"{identity}.pem",
            key=directory / f"{identity}.key",
            authority=authority,
        )
        held = _read_pair(files.certificate, files.key, now=now)
        if held is None or not _is_issued_by(held.certificate, signer.certificate):
            _write_pair(files.certificate, files.key, _make_leaf(identity, signer, now))
        issued[identity] = files
    return issued


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _read_pair(certificate_path: Path, key_path: Path, *, now: datetime) -> _Pair | None:
    """The pair in these files; None if one is missing, broken, of another pair or too old."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    if key.public_key() != certificate.public_key():
        return None
    if certificate.not_valid_after_utc - now < _RENEWED_BEFORE_EXPIRY:
        return None
    return _Pair(certificate, key)


def _is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _make_authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _common_name("shoptrail development authority")
    certificate = (
        _begin(subject=name, issuer=name, key=key.public_key(), now=now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _make_leaf(identity: str, authority: _Pair, now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier(f"spiffe://shoptrail/{identity}"),
            x509.DNSName(identity),
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
    )
    usages = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _begin(
            subject=_common_name(identity),
            issuer=authority.certificate.subject,
            key=key.public_key(),
            now=now,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(usages, critical=False)
        .add_extension(authority_id, critical=False)
        .add_extension(names, critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _begin(
    *, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_pair(certificate_path: Path, key_path: Path, pair: _Pair) -> None:
    key = pair.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(key_path, key)
    write_private(certificate_path, pair.certificate.public_bytes(serialization.Encoding.PEM))
