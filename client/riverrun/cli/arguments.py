"""Arguments and options that several commands share, and the reading of `k=v` and places."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from riverrun.cli.completion import complete_settings, complete_topics
from riverrun.cli.places import Bound, Place, parse_bound, parse_place, parse_time_ms

Function = TypeVar("Function", bound=Callable[..., Any])


def topic_argument(function: Function) -> Function:
    """Take TOPIC, completed by the cluster."""
    return click.argument("topic", shell_complete=complete_topics)(function)


def configs_option(function: Function) -> Function:
    """Take `--config k=v`, as often as wanted."""
    return click.option(
        "--config",
        "configs",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_pairs,
        shell_complete=complete_settings,
        help="A setting of the topic, such as retention.ms=3600000; may be repeated.",
    )(function)


def partitions_option(function: Function) -> Function:
    """Take `--partition P`, as often as wanted."""
    return click.option(
        "--partition",
        "partitions",
        type=click.IntRange(min=0),
        multiple=True,
        help="Only this partition; may be repeated.  [default: all]",
    )(function)


def topics_option(function: Function) -> Function:
    """Take `--topic T`, as often as wanted, completed by the cluster."""
    return click.option(
        "--topic",
        "topics",
        metavar="TOPIC",
        multiple=True,
        shell_complete=complete_topics,
        help="All partitions of this topic; may be repeated.  [default: those with a commit]",
    )(function)


def reading(parse: Callable[[str], object]) -> Callable[..., Any]:
    """Make a callback that reads an option's text; a ValueError's text is told as what is wrong."""

    def read(_ctx: click.Context, param: click.Parameter, given: str | None) -> object:
        if given is None:
            return None
        try:
            return parse(given)
        except ValueError as error:
            raise click.BadParameter(str(error), param=param) from error

    return read


def read_place(text: str) -> Place:
    """Read a place, spans counted back from now."""
    return parse_place(text, now_ms())


def read_bound(text: str) -> Bound:
    """Read an offset or a time, spans counted back from now."""
    return parse_bound(text, now_ms())


def read_time_ms(text: str) -> int:
    """Read a time as ms since 1970, spans counted back from now."""
    return parse_time_ms(text, now_ms())


def now_ms() -> int:
    """Return this machine's time, which is what `10m-ago` counts back from."""
    return time.time_ns() // 1_000_000


def parse_headers(
    _ctx: click.Context, param: click.Parameter, given: Sequence[str]
) -> list[tuple[str, bytes]]:
    """Read `--header name=value`: any text may be a name, an empty one too, and any bytes a value."""
    headers = []
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE.", param=param)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise click.BadParameter(f"the name in {text!r} is not UTF-8.", param=param) from None
        headers.append((name, os.fsencode(value)))
    return headers


def _pairs(_ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """Read `k=v` options into a dict; a key given twice is a mistake."""
    pairs: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE.", param=param)
        if key in pairs:
            raise click.BadParameter(f"{key!r} is set twice.", param=param)
        pairs[key] = value
    return pairs
