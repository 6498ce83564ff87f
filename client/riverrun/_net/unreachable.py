"""What is said where no broker answers: what became of each address, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from riverrun.errors import NoBrokerError, Reason

_REFUSED = (
    "nobody listens there; start a broker (`riverrun-server run`), give one that is starting more "
    "time, or name the right address (bootstrap, RIVERRUN_BOOTSTRAP)"
)
_OTHER_PROTOCOL = (
    "something listens there, but not for clients of a broker: they are at the address in the "
    "broker's line `ready clients=…`, by default port 7171 (7173 is its HTTP, for probes)"
)
_NO_NAME = "there is no such host; check the name, or the DNS (bootstrap, RIVERRUN_BOOTSTRAP)"
_SILENT = (
    "it does not answer; a broker that is starting or overloaded may a little later, else look at "
    "its log, and at firewalls on the way"
)
_MEANINGS = {
    "Connection refused": _REFUSED,
    "HTTP/2": _OTHER_PROTOCOL,
    "http1.x server": _OTHER_PROTOCOL,
    "Domain name not found": _NO_NAME,
    "no answer in time": _SILENT,
    "timed out before receiving SETTINGS": _SILENT,
    "Deadline Exceeded": _SILENT,
}
"""What gRPC's texts mean, by a part of them, for a person who has typed an address."""

# An error is for reading, however many addresses were given and whatever a proxy says.
_ADDRESSES_TOLD = 8
_TEXT_CHARACTERS = 300


def meaning(text: str) -> str:
    """Say what gRPC's text means; the text itself where that is not known.

    >>> meaning("connect: Connection refused")[:20]
    'nobody listens there'
    """
    return next((told for part, told in _MEANINGS.items() if part in text), text)


def no_answer(failures: Mapping[str, str]) -> str:
    """Say at which addresses no broker answers, and why; of very many only the first are named.

    Args:
        failures: by address, what the last attempt said.
    """
    return _told(failures, "")


def no_broker(failures: Mapping[str, str], waited_s: float) -> NoBrokerError:
    """Make the error for addresses of which none has answered.

    Args:
        failures: by address, what the last attempt said.
        waited_s: for how long all of them were tried.
    """
    waited = f" within {round(waited_s, 1):g} s"
    return NoBrokerError(_told(failures, waited), reason=Reason.NO_BROKER)


def waiting(failures: Mapping[str, str], timeout_s: float | None) -> str:
    """Say what is waited for, and how long at the most; None is until whoever waits gives up.

    Args:
        failures: by address, what the last attempt said.
        timeout_s: for how long they are tried.
    """
    bound = ", still trying" if timeout_s is None else f" yet, waiting up to {timeout_s:g} s"
    return _told(failures, bound)


def _told(failures: Mapping[str, str], when: str) -> str:
    named = dict(islice(failures.items(), _ADDRESSES_TOLD))
    told = {address: _cut(meaning(text)) for address, text in named.items()}
    where, left = ", ".join(named), len(failures) - len(named)
    if left:
        where += f" and {left} more"
    if len(set(told.values())) == 1:
        why = next(iter(told.values()))
    else:
        why = "; ".join(f"{address}: {text}" for address, text in told.items())
    return f"no broker answers at {where}{when}: {why}"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARACTERS else f"{text[: _TEXT_CHARACTERS - 1]}…"
