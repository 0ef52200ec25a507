"""How a store wants its events to be treated, in the form that verdicts are given by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.ingest.addresses import AddressStorage
from services.ingest.plans import PlanMode, Schema


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of the track events of one name."""

    mode: PlanMode
    """`OBSERVE` or `BLOCK`."""
    schema: Schema


@dataclass(frozen=True, slots=True)
class StoreRules:
    """The settings and plans of a store. Without arguments, those of a store that has set none."""

    address_storage: AddressStorage = AddressStorage.TRUNCATED
    daily_quota: int | None = None
    plans: Mapping[str, Plan] = field(default_factory=dict)
    """By the events' name, those of the catalogue included if it is on."""


DEFAULT_RULES = StoreRules()
