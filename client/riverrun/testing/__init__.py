"""A throw-away broker for tests, in one line; needs the server extra (`pip install '.[server]'`).

pytest has the fixtures `riverrun_broker` and `riverrun_topic` as soon as riverrun is installed.
"""

from __future__ import annotations

from riverrun.testing.throwaway import BrokerNotStartedError, broker

__all__ = ["BrokerNotStartedError", "broker"]
