"""What Keys needs to know from its environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode, SettingsConfigDict

from common.config import ServiceConfig
from services.keys.peppers import Pepper, read_peppers


class KeysConfig(ServiceConfig):
    """The variables that begin with `KEYS_`."""

    model_config = SettingsConfigDict(env_prefix="KEYS_")

    peppers: Annotated[tuple[Pepper, ...], NoDecode, BeforeValidator(read_peppers)]
    """`version:64 hex digits`, separated by commas. New keys are hashed under the first; keys
    that were hashed under one of the others work as long as it is listed."""
