"""A topic's configuration as the wire has it: texts."""

from __future__ import annotations

from collections.abc import Mapping

from riverrun._core.argument_checks import out_of_range
from riverrun.errors import Reason, UsageError


def config_texts(configs: Mapping[str, str | int]) -> dict[str, str]:
    """Return keys and values as texts; numbers and booleans are written out.

    Raises:
        UsageError: a key or a value is something else.
    """
    if not isinstance(configs, Mapping):
        raise out_of_range(
            "the configuration", configs, 'a mapping, as {"retention.ms": "3600000"}'
        )
    texts: dict[str, str] = {}
    for key, value in configs.items():
        if not isinstance(key, str) or not isinstance(value, str | int):
            raise UsageError(
                f"the configuration has {key!r}: {value!r}; keys are texts, and values are texts, whole "
                "numbers or booleans",
                reason=Reason.INVALID_REQUEST,
            )
        texts[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return texts
