"""Mutual TLS: every process shows a certificate with its identity, and asks for the other's."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from common.config import TlsConfig


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a process shows, and whom it trusts, in PEM."""

    certificate: bytes
    key: bytes
    authority: bytes

    def for_server(self) -> grpc.ServerCredentials:
        """Credentials of a server that turns away callers without a certificate."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)],
            root_certificates=self.authority,
            require_client_auth=True,
        )

    def for_channel(self) -> grpc.ChannelCredentials:
        """Credentials of a client."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.authority,
            private_key=self.key,
            certificate_chain=self.certificate,
        )


def read_certificates(config: TlsConfig) -> Certificates:
    """The certificates in the configured files."""
    return Certificates(
        certificate=config.tls_certificate.read_bytes(),
        key=config.tls_key.read_bytes(),
        authority=config.tls_authority.read_bytes(),
    )
