"""Gathers settings from a file, the environment and flags, and remembers where each came from."""
# ruff: noqa: RUF009 - setting() declares a field, it is no shared default

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from riverrun_server.config.checks import problems
from riverrun_server.config.kinds import Choice, Endpoint, Kind, Maybe, Text
from riverrun_server.config.setting import PREFIX, Setting, build, setting, settings_of
from riverrun_server.config.settings import Settings
from riverrun_server.config.toml_lines import lines_of
from riverrun_server.rpc.listener import Address, Listener, Protocol

DEFAULT: Final = "default"
_SHOWN_MAX: Final = 100
# The user, and perhaps the password, in front of an address.
_LOGIN: Final = re.compile(r"://[^/\s]*@")
# Variables that begin like settings and are none: the file itself, and the client's own.
_OTHERS: Final = {"RIVERRUN_CONFIG", "RIVERRUN_BOOTSTRAP"}
# Kubernetes and Docker links set these for a service whose name begins with "riverrun".
_SERVICE_LINK: Final = re.compile(
    r"\w+_SERVICE_(HOST|PORT(_\w+)?)|\w+_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
)


class ConfigError(Exception):
    """The settings cannot be used; `problems` has one line for each thing that is wrong."""

    def __init__(self, found: list[str]) -> None:
        super().__init__("\n".join(found))
        self.problems = found


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and where they came from.

    Attributes:
        settings: checked.
        origins: by key; what is not named here has its default.
    """

    settings: Settings
    origins: Mapping[str, str]

    def origin(self, key: str) -> str:
        """Return where a setting's value came from."""
        return self.origins.get(key, DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shorthand:
    """One listener without a `[[listeners]]` table; what is given here replaces those tables."""

    listen: Address | None = setting(
        Maybe(Endpoint(), "127.0.0.1:7171"),
        flag=True,
        doc="Where clients connect: one plaintext listener named `clients`, in place of every "
        "`[[listeners]]` table. Port 0 lets the system choose.",
    )
    advertise: Address | None = setting(
        Maybe(Endpoint(), "what `listen` says"),
        flag=True,
        doc="The address under which clients reach that listener, where it is another one: behind "
        "a mapped port, a proxy, or when listening on every interface.",
    )


_LISTENER_KINDS: Final[Mapping[str, Kind[Any]]] = {
    "name": Text(r"[a-z][a-z0-9_-]{0,31}", "up to 32 lower-case letters, digits, '_' or '-'"),
    "bind": Endpoint(),
    "advertised": Endpoint(),
    "protocol": Choice(tuple(protocol.value for protocol in Protocol)),
}


def all_settings() -> list[Setting]:
    """Return every setting that a source may name, listeners' tables aside."""
    return [*settings_of(Shorthand), *settings_of(Settings)]


def load(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
    assignments: Mapping[str, str] | None = None,
) -> Loaded:
    """Return the settings that the sources say; each source outranks the one before it.

    Args:
        file: TOML.
        environ: all variables; those that do not begin with RIVERRUN_ are somebody else's.
        flags: raw values by key, only those that were given.
        assignments: the same, of `--set`.

    Raises:
        ConfigError: a source is unreadable, names an unknown setting or holds a bad value.
    """
    gathered = _Gathered()
    if file is not None:
        gathered.take_file(file)
    gathered.take_environment(environ or {})
    gathered.take_flags(flags or {})
    gathered.take_assignments(assignments or {})
    gathered.settle_listeners()
    if gathered.problems:
        raise ConfigError(gathered.problems)
    settings = build(Settings, gathered.values)
    if found := problems(settings):
        raise ConfigError(found)
    return Loaded(settings, gathered.origins)


@dataclass(slots=True)
class _Gathered:
    """What the sources have said so far."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    known: dict[str, Setting] = field(
        default_factory=lambda: {each.key: each for each in all_settings()}
    )
    file: Path | None = None
    lines: Mapping[str, int] = field(default_factory=dict)

    def take_file(self, file: Path) -> None:
        """Take the settings and listeners of a TOML file."""
        try:
            text = file.read_bytes().decode()
            content = tomllib.loads(text)
        except OSError as error:
            self.problems.append(f"{file}: cannot be read: {error.strerror}")
            return
        except UnicodeDecodeError as error:
            self.problems.append(f"{file}: not UTF-8, which TOML must be: {error.reason}")
            return
        except (ValueError, RecursionError) as error:
            # Numbers too long to convert, and brackets too deep to follow, are no TOML errors.
            self.problems.append(f"{file}: not TOML: {error}")
            return
        self.file, self.lines = file, lines_of(text)
        if "listeners" in content:
            self._take_listeners(content.pop("listeners"))
        tables = {key.partition(".")[0] for key in self.known if "." in key}
        for name, value in content.items():
            if name not in tables:
                self._take_outside(name, value, tables)
            elif isinstance(value, dict):
                for inner, deep in value.items():
                    self._take(f"{name}.{inner}", deep, self._at(f"{name}.{inner}", name))
            else:
                self.problems.append(
                    f"{self._at(name)}: {name} is a table: write [{name}] above its keys"
                )

    def _take_outside(self, name: str, value: object, tables: Collection[str]) -> None:
        """Take what stands at the top of the file, which is no table that there is."""
        if isinstance(value, dict) and name not in self.known:
            known = sorted({*tables, "listeners"})
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean [{near[0]}]?" if near else f"there are {', '.join(known)}"
            self.problems.append(f"{self._at(name)}: there is no table [{_named(name)}]; {hint}")
        else:
            self._take(name, value, self._at(name))

    def _at(self, *keys: str) -> str:
        """Return the file, and the line of the first of these keys whose line is known."""
        line = next((self.lines[key] for key in keys if key in self.lines), None)
        return f"file {self.file}" + ("" if line is None else f":{line}")

    def take_environment(self, environ: Mapping[str, str]) -> None:
        """Take every variable that is a setting."""
        by_variable = {each.variable: each for each in self.known.values()}
        for name in sorted(environ):
            if not name.startswith(PREFIX) or name in _OTHERS:
                continue
            if name in by_variable:
                self._read(by_variable[name], environ[name], f"environment {name}")
            elif not _SERVICE_LINK.fullmatch(name):
                hint = _did_you_mean(name, by_variable)
                self.problems.append(f"environment: there is no setting {_named(name)}{hint}")

    def take_flags(self, flags: Mapping[str, str]) -> None:
        """Take what the command line gave."""
        for key, value in flags.items():
            one = self.known.get(key)
            own = one is not None and one.has_flag
            where = one.flag if one and own else f"--set {_named(key)}"
            self._take(key, value, f"flag {where}")

    def take_assignments(self, assignments: Mapping[str, str]) -> None:
        """Take what the command line gave by `--set`."""
        for key, value in assignments.items():
            self._take(key, value, f"flag --set {_named(key)}")

    def settle_listeners(self) -> None:
        """Turn the shorthand into a listener; it outranks tables from the file."""
        bind = self.values.pop("listen", None)
        advertised = self.values.pop("advertise", None)
        if bind is None and advertised is None:
            return
        where = "listen" if bind is not None else "advertise"
        origin = self.origins[where]
        if "listeners" in self.values and (origin.startswith("file ") or bind is None):
            self.problems.append(
                f"{origin}: {where} stands beside [[listeners]] and would say the same thing "
                "twice; write `bind` and `advertised` into the table"
            )
            return
        bind = bind or Settings().listeners[0].bind
        assert isinstance(bind, Address)
        assert advertised is None or isinstance(advertised, Address)
        self.values["listeners"] = (Listener(bind=bind, advertised=advertised or bind),)
        for key in [key for key in self.origins if key.startswith("listeners.")]:
            del self.origins[key]
        self.origins["listeners.0.bind"] = self.origins.get("listen", DEFAULT)
        self.origins["listeners.0.advertised"] = self.origins.get("advertise", origin)

    def _take_listeners(self, tables: object) -> None:
        if not isinstance(tables, list) or not tables:
            self.problems.append(
                f"{self._at('listeners')}: listeners is a list of tables: write [[listeners]] "
                "above each"
            )
            return
        listeners = [self._listener(table, index) for index, table in enumerate(tables)]
        self.values["listeners"] = tuple(one for one in listeners if one is not None)

    def _listener(self, table: object, index: int) -> Listener | None:
        place = f"listeners.{index}"
        if not isinstance(table, dict):
            self.problems.append(f"{self._at('listeners')}: each of [[listeners]] is a table")
            return None
        values: dict[str, object] = {}
        for key, raw in table.items():
            origin = self._at(f"{place}.{key}", place)
            kind = _LISTENER_KINDS.get(key)
            if kind is None:
                hint = _did_you_mean(key, _LISTENER_KINDS)
                self.problems.append(f"{origin}: a listener has no {_named(key)}{hint}")
                continue
            try:
                values[key] = kind.read(raw)
                self.origins[f"{place}.{key}"] = origin
            except ValueError as error:
                where = f"{origin}: {key} of a listener"
                self.problems.append(_refused(where, _quoted(raw), kind.accepts, error))
        bind, advertised = values.get("bind"), values.get("advertised")
        if "bind" not in table:
            self.problems.append(f"{self._at(place)}: a listener has no bind = HOST:PORT")
        if not isinstance(bind, Address):
            return None
        assert advertised is None or isinstance(advertised, Address)
        return Listener(
            name=str(values.get("name", "clients")),
            bind=bind,
            advertised=advertised or bind,
            protocol=Protocol(values.get("protocol", Protocol.PLAINTEXT)),
        )

    def _take(self, key: str, raw: object, origin: str) -> None:
        one = self.known.get(key)
        if one is None:
            hint = _did_you_mean(key, self.known)
            self.problems.append(f"{origin}: there is no setting {_named(key)}{hint}")
        else:
            self._read(one, raw, origin)

    def _read(self, one: Setting, raw: object, origin: str) -> None:
        try:
            self.values[one.key] = one.kind.read(raw)
            self.origins[one.key] = origin
        except ValueError as error:
            where = f"{origin}: {one.key}"
            if one.secret:
                # Why it was refused may quote it.
                self.problems.append(f"{where}: expected {one.kind.accepts}, got another secret")
            else:
                self.problems.append(_refused(where, _quoted(raw), one.kind.accepts, error))


def _refused(where: str, shown: str, accepts: str, error: ValueError) -> str:
    why = f" ({_named(str(error))})" if error.args else ""
    return f"{where}: expected {accepts}, got {shown}{why}"


def _quoted(raw: object) -> str:
    """Write a value as far as it fits a line, without whom an address in it logs in as."""
    try:
        return _cut(_LOGIN.sub("://***@", repr(raw)))
    except ValueError:  # Python writes out no number of more than some thousand digits
        return "a number of thousands of digits"


def _named(text: str) -> str:
    """Write a name from a source as far as it fits a line, and so that it cannot draw on it."""
    return _cut("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}… ({len(text)} characters)"


def _did_you_mean(name: str, known: Collection[str]) -> str:
    # A right name without its table, or in the wrong one, is nearer than any other spelling.
    tail = name.removeprefix(PREFIX).rpartition(".")[2]
    near = [key for key in known if key.endswith((f".{tail}", f"_{tail}"))]
    near += difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
