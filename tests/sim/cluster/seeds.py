"""Seeds that found something once, each with what it was; they stay, and run with every test suite."""

from __future__ import annotations

FOUND: dict[int, str] = {}
