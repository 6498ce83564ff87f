"""A reader's place: what it gets, when it waits, what it never sees."""

import asyncio

import pytest

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import StoredBatch
from riverrun_server.ports.log import StorageError
from riverrun_server.runtime.cursor import LocalCursor


class Partition:
    """A partition of batches of ten offsets; the tail begins where a test says."""

    def __init__(self, batches=10, *, tail_from=0):
        self.batches = [StoredBatch(n * 10, n * 10 + 10, 1, b"x" * 100) for n in range(batches)]
        self.high_watermark = batches * 10
        self.log_start_offset = 0
        self.tail_from = tail_from
        self.waiting = set()
        self.reads = []
        self.handed_out = []
        self.flow = self

    def check_readable(self, offset, leader_epoch):
        if offset < self.log_start_offset:
            raise Refusal(Reason.OFFSET_OUT_OF_RANGE, "gone")

    def _from(self, offset, max_bytes):
        found = [b for b in self.batches if b.next_offset > offset]
        found = [b for b in found if b.next_offset <= self.high_watermark]
        return found[: max(1, max_bytes // 100)]

    def read_tail(self, offset, max_bytes):
        return None if offset < self.tail_from else self._from(offset, max_bytes)

    def read_disk(self, offset, max_bytes):
        future = asyncio.get_running_loop().create_future()
        self.reads.append((offset, future, max_bytes))
        return future

    def answer_read(self):
        offset, future, max_bytes = self.reads.pop(0)
        future.set_result(self._from(offset, max_bytes))

    def delivered(self, records, size_bytes, *, from_disk):
        self.handed_out.append((records, size_bytes, "disk" if from_disk else "memory"))

    def wait(self, wake):
        self.waiting.add(wake)

    def unwait(self, wake):
        self.waiting.discard(wake)


@pytest.fixture
def woken():
    return []


def cursor_of(partition, woken, offset=0):
    return LocalCursor(partition, offset, lambda: woken.append(1))


async def turn():
    await asyncio.sleep(0)


async def test_chunks_continue_one_another(woken):
    cursor = cursor_of(Partition(), woken)
    first, second = cursor.take(300), cursor.take(300)
    assert (first.first_offset, first.next_offset) == (0, 30)
    assert (second.first_offset, second.next_offset) == (30, 60)


async def test_a_chunk_read_from_within_a_batch_starts_at_the_position(woken):
    chunk = cursor_of(Partition(), woken, 15).take(100)
    assert (chunk.first_offset, chunk.next_offset) == (15, 20)
    assert chunk.batches[0].base_offset == 10


async def test_nothing_at_or_above_the_watermark_is_delivered(woken):
    partition = Partition()
    partition.high_watermark = 20
    cursor = cursor_of(partition, woken)
    assert cursor.take(10_000).next_offset == 20
    assert cursor.take(10_000) is None
    assert partition.waiting


async def test_behind_the_tail_the_disk_is_read_once_and_then_ahead(woken):
    partition = Partition(tail_from=100)
    cursor = cursor_of(partition, woken)
    assert cursor.take(300) is None
    assert cursor.take(300) is None  # one read at a time
    assert len(partition.reads) == 1
    partition.answer_read()
    await turn()
    assert woken == [1]
    assert cursor.take(300).next_offset == 30
    assert [offset for offset, *_ in partition.reads] == [30]  # the next read is under way


async def test_a_seek_drops_what_was_being_read(woken):
    partition = Partition(tail_from=50)
    cursor = cursor_of(partition, woken)
    cursor.take(300)
    cursor.seek(60)
    partition.answer_read()
    await turn()
    assert woken == []
    assert cursor.take(100).first_offset == 60


async def test_a_trim_during_a_read_is_out_of_range_and_not_a_silent_gap(woken):
    partition = Partition(tail_from=100)
    cursor = cursor_of(partition, woken)
    cursor.take(300)
    partition.log_start_offset = 40
    partition.answer_read()
    await turn()
    with pytest.raises(Refusal) as refused:
        cursor.take(300)
    assert refused.value.reason is Reason.OFFSET_OUT_OF_RANGE
    assert cursor.position == 0


async def test_a_read_that_finds_damage_refuses_until_a_seek(woken):
    partition = Partition(tail_from=50)
    cursor = cursor_of(partition, woken)
    cursor.take(300)
    partition.reads[0][1].set_exception(Refusal(Reason.CORRUPT_DATA, "bit"))
    await turn()
    for _ in range(2):
        with pytest.raises(Refusal):
            cursor.take(300)
    cursor.seek(60)
    assert cursor.take(100).first_offset == 60


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Refusal(Reason.STORAGE_STALLED, "EIO"), Reason.STORAGE_STALLED),
        (StorageError("EIO"), Reason.INTERNAL),
        (OSError("EIO"), Reason.INTERNAL),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_whatever_a_read_fails_with_the_reader_is_woken_and_refused(woken, error, reason):
    partition = Partition(tail_from=100)
    cursor = cursor_of(partition, woken)
    assert cursor.take(300) is None
    partition.reads[0][1].set_exception(error)
    await turn()
    assert woken == [1]
    with pytest.raises(Refusal, match="EIO") as refused:
        cursor.take(300)
    assert refused.value.reason is reason
    assert cursor.position == 0


async def test_a_read_that_fails_ahead_of_the_reader_spoils_nothing_that_was_read(woken):
    partition = Partition(tail_from=100)
    cursor = cursor_of(partition, woken)
    cursor.take(300)
    partition.answer_read()
    await turn()
    assert cursor.take(300).next_offset == 30
    partition.reads[0][1].set_exception(OSError("EIO"))
    await turn()
    with pytest.raises(Refusal, match="EIO"):
        cursor.take(300)
    assert cursor.position == 30


async def test_a_read_that_is_cancelled_does_not_leave_its_reader_waiting(woken):
    partition = Partition(tail_from=100)
    cursor = cursor_of(partition, woken)
    cursor.take(300)
    partition.reads[0][1].cancel()
    await turn()
    assert woken == [1]
    with pytest.raises(Refusal) as refused:
        cursor.take(300)
    assert refused.value.reason is Reason.SHUTTING_DOWN


async def test_a_closed_cursor_is_never_woken(woken):
    partition = Partition(tail_from=100)
    cursor = cursor_of(partition, woken)
    cursor.take(300)
    cursor.close()
    partition.answer_read()
    await turn()
    assert woken == []
    assert not partition.waiting


async def test_what_a_reader_is_handed_is_counted_with_where_it_came_from(woken):
    partition = Partition(4, tail_from=20)
    cursor = cursor_of(partition, woken, 5)
    assert cursor.take(200) is None
    partition.answer_read()
    await asyncio.sleep(0)
    cursor.take(100)
    cursor.take(1000)
    assert partition.handed_out == [(15, 200, "disk"), (20, 200, "memory")]


async def test_what_comes_from_memory_is_known_before_it_is_taken(woken):
    partition = Partition(tail_from=50)
    cursor = cursor_of(partition, woken, 50)
    assert cursor.in_memory(300) == 300
    assert cursor.position == 50
    assert len(cursor.take(300).batches) == 3
    cursor.seek(100)
    assert cursor.in_memory(300) == 0  # nothing to be read takes nothing


async def test_what_is_on_the_disk_is_not_in_memory_before_or_while_it_is_read(woken):
    partition = Partition(tail_from=50)
    cursor = cursor_of(partition, woken)
    assert (cursor.in_memory(300), cursor.reads_ahead) == (None, False)
    assert cursor.take(300) is None
    assert (cursor.in_memory(300), cursor.reads_ahead) == (None, True)
    partition.answer_read()
    await turn()
    assert cursor.reads_ahead
