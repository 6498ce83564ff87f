"""The configuration of a topic: every key with its meaning, default, range and parser.

What is stored for a topic are the strings that were set for it, in canonical form; `resolve` fills
in the rest from the broker's defaults. A key that this broker does not honour is an error: a topic
never pretends to have a property.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from riverrun_server.core.cluster.naming import did_you_mean, quoted
from riverrun_server.core.cluster.quantities import parse_duration_ms, parse_size_bytes
from riverrun_server.core.errors import Reason, Refusal

DAY_MS: Final = 86_400_000
MAX_BATCH_BYTES: Final = 3 << 20  # core.limits says why


class UncleanRecovery(enum.Enum):
    """What happens to a partition when no replica that has all of its data is left."""

    OFFLINE = "offline"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """A topic's configuration as the broker applies it.

    Attributes:
        retention_ms: how long a batch is kept after its append; None is for ever.
        retention_bytes: how many bytes of a partition are kept; None is all.
        max_batch_bytes: the largest batch, also expanded.
        fsync: appends count once they are on the disk; else ("relaxed") a crash of the machine may
            take back what was acknowledged.
        min_insync_replicas: how many replicas must have an append before it counts; more than
            there are replicas stands for all of them.
        unclean_recovery: what happens when only replicas that lost data are left.
    """

    retention_ms: int | None = 7 * DAY_MS
    retention_bytes: int | None = None
    max_batch_bytes: int = 1 << 20
    fsync: bool = True
    min_insync_replicas: int = 1
    unclean_recovery: UncleanRecovery = UncleanRecovery.OFFLINE

    def effective_min_isr(self, replication_factor: int) -> int:
        """Return how many in-sync replicas a partition needs in fact."""
        return min(self.min_insync_replicas, replication_factor)


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One key of a topic's configuration.

    Attributes:
        name: as it is set.
        doc: what it means, in a sentence, with its range.
        default: its canonical default; None depends on the replication factor.
        canonical: returns the canonical form of a value, or raises ValueError with what was
            expected.
    """

    name: str
    doc: str
    default: str | None
    canonical: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Setting:
    """One key's value for a topic, and whether it was set for that topic."""

    key: ConfigKey
    value: str
    is_set: bool


def _integer(
    parse: Callable[[str], int], low: int, high: int, *, unlimited: bool = False
) -> Callable[[str], str]:
    def canonical(text: str) -> str:
        value = parse(text)
        if not (low <= value <= high or (unlimited and value == -1)):
            expected = f"{low} to {high}" + (", or -1 for no limit" if unlimited else "")
            raise ValueError(expected)
        return str(value)

    return canonical


def _choice(*choices: str, hint: str = "") -> Callable[[str], str]:
    def canonical(text: str) -> str:
        if text not in choices:
            raise ValueError(" or ".join(choices) + hint)
        return text

    return canonical


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError("a number")
    return int(text)


_LARGEST = (1 << 63) - 1

KEYS: Final[dict[str, ConfigKey]] = {
    key.name: key
    for key in (
        ConfigKey(
            "fsync",
            "When an append counts: true (default), once it is on the disk; relaxed, once it is "
            "written, so that a crash may take back what was acknowledged, and the topic then does "
            "as unclean.recovery says.",
            "true",
            _choice("true", "relaxed", hint=" (the name says what it gives up)"),
        ),
        ConfigKey(
            "max.batch.bytes",
            "The largest batch, also expanded: 1 KiB to 3 MiB.",
            str(1 << 20),
            _integer(parse_size_bytes, 1 << 10, MAX_BATCH_BYTES),
        ),
        ConfigKey(
            "min.insync.replicas",
            "How many replicas must have an append before it counts; more than the topic has "
            "replicas stands for all of them. Default: 2 with 3 replicas or more, else 1.",
            None,
            _integer(_count, 1, 1_000),
        ),
        ConfigKey(
            "retention.bytes",
            "How many bytes of each partition are kept; -1 keeps all. The newest batch always "
            "stays.",
            "-1",
            _integer(parse_size_bytes, 1, _LARGEST, unlimited=True),
        ),
        ConfigKey(
            "retention.ms",
            "How long a batch is kept after its append, in ms or as 90s, 15m, 12h, 7d; -1 keeps "
            "it for ever.",
            str(7 * DAY_MS),
            _integer(parse_duration_ms, 1, _LARGEST, unlimited=True),
        ),
        ConfigKey(
            "unclean.recovery",
            "What happens when every replica that had all data is lost: offline (default), the "
            "partition waits for an operator; accept, what is left is served and the loss counted.",
            UncleanRecovery.OFFLINE.value,
            _choice(*(each.value for each in UncleanRecovery)),
        ),
    )
}


def canonical(configs: Mapping[str, str]) -> dict[str, str]:
    """Return configuration from a request in canonical form.

    Raises:
        Refusal: INVALID_CONFIG names the first unknown key or value out of range.
    """
    check_keys(configs)
    return {name: _canonical(name, configs[name]) for name in sorted(configs)}


def check_keys(names: Collection[str]) -> None:
    """Refuse names that are no configuration keys, or more names than there are keys.

    Raises:
        Refusal: INVALID_CONFIG.
    """
    # A request of a million keys costs no more than its first few.
    for name in itertools.islice(names, len(KEYS) + 1):
        if name not in KEYS:
            raise _unknown(name)
    if len(names) > len(KEYS):
        raise Refusal(
            Reason.INVALID_CONFIG, f"{len(names)} config keys are named, there are {len(KEYS)}"
        )


def resolve(
    configs: Mapping[str, str], defaults: Mapping[str, str], replication_factor: int
) -> TopicConfig:
    """Return what holds for a topic: what was set for it, the broker's defaults for the rest.

    Both mappings are canonical. A key that is not known any more, or not yet, counts for nothing:
    metadata may have been written by a newer broker.
    """
    values = {
        setting.key.name: setting.value
        for setting in settings(configs, defaults, replication_factor)
    }
    return TopicConfig(
        retention_ms=_limit(values["retention.ms"]),
        retention_bytes=_limit(values["retention.bytes"]),
        max_batch_bytes=int(values["max.batch.bytes"]),
        fsync=values["fsync"] == "true",
        min_insync_replicas=int(values["min.insync.replicas"]),
        unclean_recovery=UncleanRecovery(values["unclean.recovery"]),
    )


def settings(
    configs: Mapping[str, str], defaults: Mapping[str, str], replication_factor: int
) -> list[Setting]:
    """Return every setting that holds for a topic, by name."""
    found = []
    for key in KEYS.values():
        value = configs.get(key.name)
        default = defaults.get(key.name) or key.default or _min_isr_default(replication_factor)
        found.append(Setting(key, default if value is None else value, value is not None))
    return found


def _min_isr_default(replication_factor: int) -> str:
    return "2" if replication_factor >= 3 else "1"


def _limit(value: str) -> int | None:
    return None if value == "-1" else int(value)


def _canonical(name: str, value: str) -> str:
    try:
        return KEYS[name].canonical(value)
    except ValueError as expected:
        raise Refusal(
            Reason.INVALID_CONFIG, f"config {name} is {quoted(value)}, expected {expected}"
        ) from None


def _unknown(name: str) -> Refusal:
    return Refusal(
        Reason.INVALID_CONFIG,
        f"unknown config key {quoted(name)}{did_you_mean(name, list(KEYS)) or '.'} "
        f"The keys are {', '.join(KEYS)}",
    )
