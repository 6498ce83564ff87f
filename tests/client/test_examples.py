"""Every public name has an example in its docstring, and every example runs against a real broker."""

from __future__ import annotations

import ast
import asyncio
import enum
import inspect
import re
import textwrap
import time

import pytest

import riverrun
import riverrun.blocking
import riverrun.deserializers
import riverrun.serializers
import riverrun.testing

EXAMPLE = re.compile(r"^Examples?:\n((?:    .*\n?|\n)+)", re.MULTILINE)
MODULES = (
    riverrun,
    riverrun.blocking,
    riverrun.testing,
    riverrun.serializers,
    riverrun.deserializers,
)


def documented():
    """Yield the public classes, functions and methods by their names."""
    yield "riverrun.serializers", riverrun.serializers
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            thing = getattr(thing, "__origin__", thing)
            if not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue  # an alias of types
            if not thing.__module__.startswith("riverrun"):
                continue  # an alias of somebody else's
            yield f"{module.__name__}.{name}", thing
            if inspect.isclass(thing) and not issubclass(thing, (enum.Enum, Exception)):
                for method, value in inspect.getmembers(thing, inspect.isfunction):
                    if not method.startswith("_") and value.__module__.startswith("riverrun"):
                        yield f"{module.__name__}.{name}.{method}", value


NAMES = dict(documented())


def examples(thing) -> list[str]:
    text = inspect.cleandoc(thing.__doc__ or "")
    return [textwrap.dedent(found) for found in EXAMPLE.findall(text)]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_an_example(name):
    assert examples(NAMES[name]), f"{name} has no section 'Example:' in its docstring"


@pytest.fixture(scope="module")
def setup(real_broker):
    with riverrun.blocking.Client(real_broker.address) as client:
        yield client


def adapted(code, address, suffix):
    """Give an example this broker, and topics and groups of its own."""
    code = code.replace("127.0.0.1:7171", address)
    return re.sub(r'"(orders|clicks|billing)"', rf'"\1-{suffix}"', code)


async def run_async(code, address, orders, group):
    async with riverrun.Client(address) as client:
        names = {
            "asyncio": asyncio,
            "client": client,
            "producer": client.producer(),
            "consumer": client.consumer(orders, group=group),
            "admin": client.admin(),
        }
        coroutine = execute(code, names)
        if inspect.iscoroutine(coroutine):
            async with asyncio.timeout(30):
                await coroutine


def run_blocking(code, address, orders, group):
    with riverrun.blocking.Client(address) as client:
        names = {
            "client": client,
            "producer": client.producer(),
            "consumer": client.consumer(orders, group=group, stop_at_end=True),
            "admin": client.admin(),
        }
        execute(code, names)


def execute(code, names):
    names = {"riverrun": riverrun, "time": time, **names}
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return eval(compile(code, "<example>", "exec", flags=flags), names)


@pytest.mark.parametrize("name", [name for name in NAMES if examples(NAMES[name])])
def test_an_example_runs(name, real_broker, setup, capsys):
    for number, code in enumerate(examples(NAMES[name])):
        suffix = f"{name}-{number}"
        orders, group = f"orders-{suffix}", f"billing-{suffix}"
        setup.admin().create_topic(orders, partitions=3)
        with setup.producer() as producer:
            producer.send_many(orders, [b"0", b"1", b"2"], partition=0)
        setup.admin().commit_group_offsets(group, {riverrun.TopicPartition(orders, 0): 1})
        runnable = adapted(code, real_broker.address, suffix)
        if name.startswith(("riverrun.blocking.", "riverrun.testing.")):
            run_blocking(runnable, real_broker.address, orders, group)
        else:
            asyncio.run(run_async(runnable, real_broker.address, orders, group))
