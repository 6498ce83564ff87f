"""Clients in other languages meet the brokers of the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import shared_broker, topic  # noqa: F401 - fixtures
