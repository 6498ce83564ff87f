"""The client without async: the same names, arguments, results and errors, for any number of threads."""

from __future__ import annotations

from riverrun.blocking.admin import Admin
from riverrun.blocking.client import Client
from riverrun.blocking.consumer import Consumer
from riverrun.blocking.producer import Producer

__all__ = ["Admin", "Client", "Consumer", "Producer"]
