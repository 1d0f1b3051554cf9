"""Read barrier: a write waits for its entry, a reader for a position, within bounds."""

import asyncio

import pytest

from gateway.core.position import Position
from gateway.live import read_barrier as read_barrier_module
from gateway.live.read_barrier import ReadBarrier
from gateway.live.replica import Replica
from gateway.store.commit import Result
from tests.live.logbook import Log
from tests.support import MS


def write(waiting: ReadBarrier, offset: int, partition: int = 0) -> asyncio.Future[Result]:
    """Let a done commit wait for its news."""
    answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    waiting.complete_write(partition, Result("done", 0, offset=offset), answer)
    return answer


async def test_write_is_answered_when_its_news_have_come() -> None:
    """Each write waits for its own offset, in whatever order they began to wait."""
    waiting = ReadBarrier(2)
    answers = {offset: write(waiting, offset) for offset in (3, 1, 2, 5)}
    elsewhere = write(waiting, 1, partition=1)
    waiting.advance(0, 3)

    assert {offset for offset, answer in answers.items() if answer.done()} == {1, 2, 3}
    assert (await answers[2]).offset == 2
    assert not elsewhere.done()
    assert write(waiting, 3).done()


async def test_done_write_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A write whose news do not come is answered all the same, and those after it in their time."""
    monkeypatch.setattr(read_barrier_module, "APPLIED_WITHIN_S", 20 * MS)
    waiting = ReadBarrier(1)
    first = write(waiting, 1)
    assert (await first).status == "done"
    second = write(waiting, 2)
    gone = write(waiting, 3)
    gone.cancel()
    third = write(waiting, 4)
    await asyncio.gather(second, third)

    assert "own writes are not applied in time" in caplog.text
    assert not waiting._in_time  # noqa: SLF001
    assert waiting._timer is None  # noqa: SLF001


async def test_writer_that_went_away_leaves_nothing_behind() -> None:
    """A write whose caller has gone is passed over, and forgotten with the news."""
    waiting = ReadBarrier(1)
    answers = [write(waiting, offset) for offset in (1, 2, 3)]
    answers[0].cancel()
    answers[2].cancel()
    waiting.advance(0, 3)

    assert (await answers[1]).offset == 2
    assert waiting._writes == [[]]  # noqa: SLF001
    assert not waiting._in_time  # noqa: SLF001


async def test_lost_history_lets_writers_go() -> None:
    """An offset of a history that was lost will never come: nobody waits for it."""
    waiting = ReadBarrier(2)
    lost, kept = write(waiting, 9), write(waiting, 9, partition=1)
    waiting.release_all(0)
    waiting.advance(0, 2)

    assert (await lost).offset == 9
    assert not kept.done()
    assert not write(waiting, 3).done()


async def test_reader_goes_on_when_its_position_has_come() -> None:
    """Who waits for a position waits for all of it, and leaves nothing behind."""
    log, replica = Log(), Replica(1)
    readers = [
        asyncio.create_task(replica.wait_for_position(Position("", (offset,))))
        for offset in (0, 1, 2)
    ]
    await asyncio.sleep(0)

    assert [task.done() for task in readers] == [True, False, False]

    log.open("s")
    log.play(replica)
    replica.notify(0)
    await asyncio.sleep(0)

    assert [task.done() for task in readers] == [True, True, False]

    readers[2].cancel()
    await asyncio.gather(*readers, return_exceptions=True)

    assert not replica.barrier.has_position_waiters


async def test_reader_of_another_epoch_goes_on() -> None:
    """A position that can never come does not keep anybody once history was lost."""
    replica = Replica(1)
    reader = asyncio.create_task(replica.wait_for_position(Position("", (9,))))
    await asyncio.sleep(0)
    replica.epochs[0] = "other"
    replica.notify(0)

    await reader
