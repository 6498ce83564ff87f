"""The blocking face has the names, arguments and results of the async one, and differs where it must."""

from __future__ import annotations

import inspect
import typing

import pytest

import riverrun
import riverrun.blocking

PAIRS = [
    (riverrun.Client, riverrun.blocking.Client),
    (riverrun.Producer, riverrun.blocking.Producer),
    (riverrun.Consumer, riverrun.blocking.Consumer),
    (riverrun.Admin, riverrun.blocking.Admin),
]
PROTOCOLS = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
}
# For `contextlib.aclosing`; `contextlib.closing` calls `close`.
WITHOUT_TWIN = {"aclose"}
# What stands for what where nothing is awaited.
RESULTS = {
    "AsyncIterator[": "Iterator[",
    "asyncio.Future[": "Future[",
}
ARGUMENTS = {
    ("Producer", "send_many", "records"): "Iterable[Item[K, V]]",
    ("Consumer", "process", "handler"): "Callable[[Record[K, V]], object]",
}


def faces():
    for theirs, ours in PAIRS:
        for name in members(theirs):
            mine = PROTOCOLS.get(name, name)
            if (not mine.startswith("_") and mine not in WITHOUT_TWIN) or name in PROTOCOLS:
                yield pytest.param(theirs, ours, name, mine, id=f"{theirs.__name__}.{mine}")
        yield pytest.param(theirs, ours, "__init__", "__init__", id=f"{theirs.__name__}()")


def members(kind) -> dict[str, object]:
    """Return what a class has of its own or of ours that it was put together from."""
    ours = [base for base in reversed(kind.__mro__) if base.__module__.startswith("riverrun")]
    return {name: member for base in ours for name, member in vars(base).items()}


def public(kind) -> set[str]:
    return {name for name in members(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=lambda kind: kind.__module__)
def test_both_faces_have_the_same_public_names(theirs, ours):
    assert public(ours) == public(theirs) - WITHOUT_TWIN
    assert set(riverrun.blocking.__all__) == {kind.__name__ for _, kind in PAIRS}


@pytest.mark.parametrize(("theirs", "ours", "name", "mine"), [*faces()])
def test_a_member_takes_and_returns_the_same(theirs, ours, name, mine):
    assert mine in members(ours), f"riverrun.blocking.{ours.__name__}.{mine} is missing"
    original, twin = members(theirs)[name], members(ours)[mine]
    assert type(twin) is type(original)
    if isinstance(original, property):
        original, twin = original.fget, twin.fget
    expected, actual = inspect.signature(original), inspect.signature(twin)
    if name == "__init__" and theirs is not riverrun.Client:
        return  # made by the client only
    assert [*actual.parameters] == [*expected.parameters]
    for parameter in expected.parameters.values():
        stands = actual.parameters[parameter.name]
        assert stands.kind is parameter.kind, parameter.name
        assert stands.default == parameter.default, parameter.name
        annotation = ARGUMENTS.get((theirs.__name__, mine, parameter.name), parameter.annotation)
        assert stands.annotation == annotation, parameter.name
    assert actual.return_annotation == without_async(expected.return_annotation)
    assert not inspect.iscoroutinefunction(twin)


@pytest.mark.parametrize("name", ["producer", "consumer"])
def test_type_checkers_are_told_the_same_of_keys_and_values(name):
    theirs = typing.get_overloads(getattr(riverrun.Client, name))
    ours = typing.get_overloads(getattr(riverrun.blocking.Client, name))
    assert len(theirs) > 1
    assert [inspect.signature(one) for one in ours] == [inspect.signature(one) for one in theirs]


def without_async(annotation: str) -> str:
    for theirs, ours in RESULTS.items():
        annotation = annotation.replace(theirs, ours)
    return annotation


@pytest.mark.parametrize("kind", [ours for _, ours in PAIRS], ids=lambda kind: kind.__name__)
def test_every_type_that_is_named_exists(kind):
    for name, member in inspect.getmembers(kind, inspect.isfunction):
        if name in members(kind):
            assert typing.get_type_hints(member) is not None


@pytest.mark.parametrize(("theirs", "ours", "name", "mine"), [*faces()])
def test_the_first_sentence_of_both_docstrings_is_the_same(theirs, ours, name, mine):
    if name.startswith("__"):
        return
    original, twin = inspect.getdoc(members(theirs)[name]), inspect.getdoc(members(ours)[mine])
    assert twin.partition(".")[0].partition(";")[0] in original
