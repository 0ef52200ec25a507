"""The development authority and what it signs."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from deploy.local.certificates import CertificateFiles, issue_certificates

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def read(files: CertificateFiles) -> x509.Certificate:
    return x509.load_pem_x509_certificate(files.certificate.read_bytes())


def test_a_certificate_names_its_identity_and_this_machine(tmp_path: Path) -> None:
    issued = issue_certificates(tmp_path, ["ingest"], now=NOW)

    names = (
        read(issued["ingest"]).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    )
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://shoptrail/ingest"
    ]
    assert names.get_values_for_type(x509.DNSName) == ["ingest", "localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_a_certificate_is_signed_by_the_authority(tmp_path: Path) -> None:
    issued = issue_certificates(tmp_path, ["ingest"], now=NOW)

    authority = x509.load_pem_x509_certificate(issued["ingest"].authority.read_bytes())
    read(issued["ingest"]).verify_directly_issued_by(authority)


def test_only_their_owner_reads_the_files(tmp_path: Path) -> None:
    issue_certificates(tmp_path / "tls", ["ingest"], now=NOW)

    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "tls").iterdir()} == {0o600}


def test_certificates_are_kept_and_new_identities_added(tmp_path: Path) -> None:
    first = issue_certificates(tmp_path, ["ingest"], now=NOW)
    kept = read(first["ingest"])

    again = issue_certificates(tmp_path, ["ingest", "query"], now=NOW + timedelta(days=300))

    assert read(again["ingest"]) == kept
    assert read(again["query"]).issuer == kept.issuer


def test_a_certificate_that_expires_within_a_week_is_made_anew(tmp_path: Path) -> None:
    issued = issue_certificates(tmp_path, ["ingest"], now=NOW)
    old = read(issued["ingest"])
    late = old.not_valid_after_utc - timedelta(days=6)

    issue_certificates(tmp_path, ["ingest"], now=late)

    new = read(issued["ingest"])
    authority = x509.load_pem_x509_certificate(issued["ingest"].authority.read_bytes())
    assert new.not_valid_after_utc > late + timedelta(days=7)
    new.verify_directly_issued_by(authority)


def test_a_broken_file_is_made_anew(tmp_path: Path) -> None:
    issued = issue_certificates(tmp_path, ["ingest"], now=NOW)
    issued["ingest"].key.write_text("broken")

    issue_certificates(tmp_path, ["ingest"], now=NOW)

    assert "PRIVATE KEY" in issued["ingest"].key.read_text()
