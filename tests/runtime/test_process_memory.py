"""What the broker asks of the allocator and the collector, in a process of its own."""

import subprocess
import sys


def said_by(program):
    """Run a program and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_a_settled_process_does_not_look_at_what_was_there_but_collects_what_comes():
    frozen, left = said_by(
        """
import gc, weakref
from riverrun_server.runtime.process_memory import settle

class Loop:
    def __init__(self):
        self.itself = self

settle()
loops = [weakref.ref(Loop()) for _ in range(100_000)]
print(gc.get_freeze_count(), sum(each() is not None for each in loops))
"""
    )
    assert int(frozen) > 1_000
    assert int(left) <= 10_000


def test_large_blocks_come_and_go_without_the_kernel():
    program = """
import resource
from riverrun_server.runtime.process_memory import keep_memory
{prepare}

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def some_messages():
    return [bytes(1 << 20) + b"-" for _ in range(6)]

for _ in range(20):
    some_messages()
before = faults()
for _ in range(50):
    some_messages()
print(faults() - before)
"""
    (without,) = said_by(program.format(prepare=""))
    (with_it,) = said_by(program.format(prepare="keep_memory()"))
    assert int(with_it) * 10 < int(without)
