"""The command line against a gateway that runs."""

from tests.security.conftest import town  # noqa: F401 - a fixture
