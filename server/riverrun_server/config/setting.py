"""How a setting is declared: a dataclass field that carries its kind, default and explanation.

A settings class is a frozen dataclass whose fields are settings or further such classes; the names
on the way down, joined by dots, are the setting's key in the file.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from riverrun_server.config.kinds import Kind

T = TypeVar("T")

PREFIX: Final = "RIVERRUN_"
_KEY: Final = "riverrun.setting"


@dataclass(frozen=True, slots=True)
class _Declared:
    kind: Kind[Any]  # a class holds settings of many kinds
    doc: str
    secret: bool
    flag: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as sources, tables and pages see it.

    Attributes:
        key: in the file, dots between tables.
        kind: what it accepts.
        default: its value where no source names it.
        doc: what it does, in a sentence or two.
        secret: never shown: not by print-config, help, errors or `repr` of the settings.
        has_flag: it has a flag of its own beside `--set`.
    """

    key: str
    kind: Kind[Any]
    default: object
    doc: str
    secret: bool
    has_flag: bool

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return PREFIX + self.key.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        """Its name on the command line, where it has one."""
        return "--" + self.key.replace(".", "-").replace("_", "-")

    def shown(self, value: object) -> str:
        """Write a value for a person; a secret only tells whether it is set."""
        if self.secret:
            return "(set)" if value else "(not set)"
        return self.kind.show(value)


def setting(
    kind: Kind[T],
    default: T | None = None,
    *,
    doc: str,
    factory: Callable[[], T] | None = None,
    secret: bool = False,
    flag: bool = False,
) -> T:
    """Declare a field of a settings class."""
    metadata = {_KEY: _Declared(kind, doc, secret, flag)}
    # The type checker sees the value that the field will hold, not the declaration.
    # Whatever prints a settings object, a traceback or a log line, prints no secret.
    field: Any = (
        dataclasses.field(default=default, metadata=metadata, repr=not secret)
        if factory is None
        else dataclasses.field(default_factory=factory, metadata=metadata, repr=not secret)
    )
    return typing.cast("T", field)


def settings_of(cls: type, prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of a settings class, depth first, in the order of declaration."""
    types = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = prefix + field.name
        declared = field.metadata.get(_KEY)
        if declared is not None:
            default = (
                field.default
                if field.default_factory is dataclasses.MISSING
                else field.default_factory()
            )
            yield Setting(key, declared.kind, default, declared.doc, declared.secret, declared.flag)
        elif dataclasses.is_dataclass(types[field.name]):
            yield from settings_of(types[field.name], f"{key}.")


def build(cls: type[T], values: dict[str, object], prefix: str = "") -> T:
    """Make a settings object from values by key; what is absent keeps its default."""
    arguments: dict[str, object] = {}
    types = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type] # every settings class is one
        key = prefix + field.name
        if field.metadata.get(_KEY) is None and dataclasses.is_dataclass(types[field.name]):
            arguments[field.name] = build(types[field.name], values, f"{key}.")
        elif key in values:
            arguments[field.name] = values[key]
    return cls(**arguments)


def value_at(settings: object, key: str) -> object:
    """Return the value that a settings object has under a key."""
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings
