"""Tells by which public keys receipts of erasures are verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.rpc import status_pb2

from gateway.errors import error_response
from gateway.exchange import Request, Response
from shoptrail.maintenance.v1 import privacy_pb2

if TYPE_CHECKING:  # The generated stubs have it for the type checker only.
    from shoptrail.maintenance.v1.privacy_pb2_grpc import PrivacyAsyncStub

RECEIPT_KEYS_PATH = "/.well-known/shoptrail-receipts.json"
_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class ReceiptKeysRoute:
    """Serves Maintenance's JSON Web Key Set to anybody."""

    privacy: PrivacyAsyncStub
    name: str = RECEIPT_KEYS_PATH
    logged: bool = True

    async def answer(self, request: Request, variables: Mapping[str, str]) -> Response:
        """The keys."""
        answer = await self.privacy.ListReceiptKeys(
            privacy_pb2.ListReceiptKeysRequest(), timeout=_SECONDS
        )
        return Response(
            200,
            answer.key_set.encode(),
            b"application/jwk-set+json",
            caching=b"public, max-age=3600",
        )

    def refuse(self, failure: status_pb2.Status) -> Response:
        """A failure in the shape of AIP-193."""
        return error_response(failure)
