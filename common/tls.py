"""Mutual TLS: every process shows a certificate with its identity, and asks for the other's."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from common.config import TlsConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a process shows, and whom it trusts, in PEM."""

    certificate: bytes
    key: bytes
    authority: bytes
    files: CertificateFiles | None = None
    """Where they were read from, if they may be replaced there while the process runs."""

    def for_server(self) -> grpc.ServerCredentials:
        """Credentials of a server that turns away callers without a certificate.

        What has changed in the files holds from the next connection on.
        """
        shown = self

        def read_anew() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            renewed = shown.read_again()
            if renewed is None:
                return None
            shown = renewed
            return renewed._configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            read_anew,  # type: ignore[arg-type]  # None, for no change, is meant by its docs
            require_client_authentication=True,
        )

    def for_channel(self) -> grpc.ChannelCredentials:
        """Credentials of a client."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.authority,
            private_key=self.key,
            certificate_chain=self.certificate,
        )

    def read_again(self) -> Certificates | None:
        """The certificates that are in the files now; None if these are still the same.

        Files that don't fit one another yet, or can't be read, count as the same: they are
        being replaced.
        """
        if self.files is None or not self.files.were_touched():
            return None
        try:
            found = self.files.read()
        except (OSError, ValueError) as error:
            log.warning("certificates not usable", extra={"error": type(error).__name__})
            return None
        self.files.note()
        if (found.certificate, found.key, found.authority) == (
            self.certificate,
            self.key,
            self.authority,
        ):
            return None
        log.info("certificates replaced")
        return found

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.certificate)], root_certificates=self.authority
        )


class CertificateFiles:
    """Three PEM files that somebody may replace."""

    def __init__(self, *, certificate: Path, key: Path, authority: Path) -> None:
        self._paths = (certificate, key, authority)
        self._seen = self._look()

    def were_touched(self) -> bool:
        """Whether one of them is another, or was written to, since they were noted."""
        return self._look() != self._seen

    def note(self) -> None:
        """Take them as they are for seen."""
        self._seen = self._look()

    def read(self) -> Certificates:
        """What is in them; raises `OSError`, or `ValueError` if it doesn't fit together."""
        certificate, key, authority = (path.read_bytes() for path in self._paths)
        shown = x509.load_pem_x509_certificate(certificate)
        private = serialization.load_pem_private_key(key, password=None)
        x509.load_pem_x509_certificates(authority)
        if private.public_key() != shown.public_key():
            raise ValueError("the key is another certificate's")
        return Certificates(certificate=certificate, key=key, authority=authority, files=self)

    def _look(self) -> list[tuple[int, int, int]]:
        try:
            stats = [path.stat() for path in self._paths]
        except OSError:
            return []  # One of them is being replaced.
        return [(found.st_ino, found.st_mtime_ns, found.st_size) for found in stats]


def read_certificates(config: TlsConfig) -> Certificates:
    """The certificates in the configured files, which may be replaced while the process runs.

    Raises `OSError` or `ValueError` if they can't be used.
    """
    return CertificateFiles(
        certificate=config.tls_certificate, key=config.tls_key, authority=config.tls_authority
    ).read()
