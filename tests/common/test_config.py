"""A process with an incomplete environment says everything that is missing, and no secret."""

import pytest

from common.config import read_config
from services.ingest.config import IngestConfig

COMPLETE = {
    "INGEST_LISTEN_ADDRESS": "127.0.0.1:7001",
    "INGEST_METRICS_ADDRESS": "127.0.0.1:7002",
    "INGEST_DATABASE_URL": "sqlite+aiosqlite:///planted-password.db",
    "INGEST_REDIS_URL": "redis://ingest:planted-password@127.0.0.1:6379/0",
    "INGEST_PAGE_TOKEN_KEY": "00" * 32,
    "INGEST_SUBJECT_KEY": "00" * 32,
    "INGEST_KEYS_ADDRESS": "127.0.0.1:7003",
    "INGEST_TLS_CERTIFICATE": "ingest.pem",
    "INGEST_TLS_KEY": "ingest.key",
    "INGEST_TLS_AUTHORITY": "authority.pem",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_complete_environment_is_read(environment: pytest.MonkeyPatch) -> None:
    config = read_config(IngestConfig)

    assert config.listen_address == "127.0.0.1:7001"
    assert config.shard_count == 1
    assert "planted" not in repr(config)


def test_all_faults_are_named_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("INGEST_LISTEN_ADDRESS")
    environment.delenv("INGEST_TLS_KEY")
    environment.setenv("INGEST_SHARD_COUNT", "planted")
    environment.setenv("INGEST_DRAIN_SECONDS", "soon")

    with pytest.raises(SystemExit) as caught:
        read_config(IngestConfig)

    told = str(caught.value)
    for variable in (
        "INGEST_LISTEN_ADDRESS",
        "INGEST_TLS_KEY",
        "INGEST_SHARD_COUNT",
        "INGEST_DRAIN_SECONDS",
    ):
        assert variable in told
    assert "planted" not in told
