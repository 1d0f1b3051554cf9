"""Group commit: many commits in one script call, each with an answer of its own."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis.exceptions import NoScriptError

from gateway.core.errors import GatewayError, OutcomeUnknown, StoreUnavailable
from gateway.store import group_commit as group_commit_module
from gateway.store.commit import Commit, Result, Script
from gateway.store.connection import ANSWER_S, Command, RedisConnection, Reply
from gateway.store.embedded import EmbeddedValkey
from gateway.store.group_commit import BATCH_MAX, GATHER_S, GroupCommit, GroupPacer, run_scripts
from tests.nodes import clock, open_store


def write(field: str, **facts: object) -> Commit:
    """Return the first commit of a record."""
    given = {"field": field, "value": b'1 {"n":1}', "entry": b"{}", **facts}
    return Commit(**given)  # type: ignore[arg-type]


def waiting(group: GroupCommit) -> list[list[bytes]]:
    """Take all groups off the queue of one that does not run; return what each would send."""
    found = []
    while group._queue:  # noqa: SLF001
        taken = group._take()  # noqa: SLF001
        found.append([commit.entry for batch in taken.values() for _, commit, *_ in batch])
    return found


async def test_refused_commit_stands_alone(valkey: EmbeddedValkey, prefix: str) -> None:
    """What the server cannot do for one commit of a group is done for those before and after."""
    async with open_store(valkey.url, prefix) as store:
        connection = store.new_connection("test")
        await connection.call("SET", store.keys[0].history, "not a stream")
        await connection.close()
        facts: list[dict[str, object]] = [{}, {"rows": (b"{}",)}, {}, {"rows": (b"{}",)}]
        results = await asyncio.gather(
            *(store.commit(0, write(f"s{n}", **given)) for n, given in enumerate(facts)),
            return_exceptions=True,
        )

        assert [type(result) for result in results] == [Result, StoreUnavailable] * 2
        assert "WRONGTYPE" in str(results[1])
        assert [offset for offset, _ in await store.entries(0, 0, 10)] == [1, 2]
        assert (await store.read(0, "s1"))[0] is None
        assert (await store.read(0, "s2"))[0] is not None


async def test_group_has_a_number_and_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much waits, what is sent at once stays small enough for others to get through."""
    monkeypatch.setattr(group_commit_module, "BATCH_MAX", 3)
    monkeypatch.setattr(group_commit_module, "BATCH_BYTES_MAX", 250)
    group = GroupCommit(RedisConnection("unix:///nowhere", "test"), clock())
    for size in (1, 1, 1, 1, 100, 200, 900, 1):
        group.commit(0, Commit(entry=b"x" * size))

    assert [list(map(len, sent)) for sent in waiting(group)] == [
        [1, 1, 1],
        [1, 100, 200],
        [900],
        [1],
    ]


def test_lone_commit_is_never_held_up() -> None:
    """Commits that come one by one leave at once, however long it goes on."""
    pace = GroupPacer()
    for at_ms in range(1000, 2000, 3):
        assert pace.wait_s(at_ms / 1000, 1) <= 0
        pace.sent(at_ms / 1000, 1)


def test_crowd_leaves_in_groups_until_it_is_over() -> None:
    """Where many come groups leave a moment apart; a full one at once, and who comes late."""
    pace, now_s = GroupPacer(), 1.0
    for _ in range(200):
        now_s += 0.0005
        pace.sent(now_s, 2)
    assert pace.wait_s(now_s, 1) == pytest.approx(GATHER_S)
    assert pace.wait_s(now_s + GATHER_S / 2, 1) == pytest.approx(GATHER_S / 2)
    assert pace.wait_s(now_s, BATCH_MAX) == 0
    assert pace.wait_s(now_s + 2 * GATHER_S, 1) <= 0

    pace.sent(now_s + 1, 1)
    assert pace.wait_s(now_s + 1, 1) == 0


async def test_commit_that_waited_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has waited so long that an answer would come too late hears that nothing was done."""
    group = GroupCommit(RedisConnection("unix:///nowhere", "test"), clock())
    late = group.commit(0, Commit(entry=b"late"))
    monkeypatch.setattr(group_commit_module, "QUEUE_S", -1)
    assert waiting(group) == [[]]
    monkeypatch.undo()
    in_time = group.commit(0, Commit(entry=b"in time"))

    assert waiting(group) == [[b"in time"]]
    assert not in_time.done()
    with pytest.raises(StoreUnavailable):
        await late


async def test_teller_gives_the_answer_of_what_is_done(valkey: EmbeddedValkey, prefix: str) -> None:
    """A done commit is answered when its on_ack says so, one that is not done at once."""
    told: list[tuple[Result, asyncio.Future[Result]]] = []
    async with open_store(valkey.url, prefix) as store:

        def on_ack(partition: int, result: Result, answer: asyncio.Future[Result]) -> None:
            assert partition == 0
            told.append((result, answer))

        done, refused = (store.commit(0, write("s"), on_ack) for _ in range(2))

        assert (await refused).status == "changed"
        assert not done.done()
        [(result, answer)] = told
        answer.set_result(result)
        assert (await done).offset == 1


async def test_failed_second_try_hides_no_answer() -> None:
    """Of two calls of a script one was not known and then lost: the other one's answer counts."""

    class Forgetful(RedisConnection):
        """A connection to a server that forgot its scripts, and breaks."""

        async def pipeline(
            self, commands: Sequence[Command], *, answer_s: float = ANSWER_S
        ) -> list[Reply]:
            assert 0 < answer_s <= ANSWER_S
            if commands[0][0] == "EVAL":
                raise OutcomeUnknown
            return [NoScriptError(), [1, b"", 7]]

    connection = Forgetful("unix:///nowhere", "test")
    replies = await run_scripts(
        connection, Script("commit.lua"), [("EVALSHA", "x"), ("EVALSHA", "x")]
    )

    assert isinstance(replies[0], GatewayError)
    assert replies[1] == [1, b"", 7]


async def test_log_that_cannot_be_trimmed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits are done and answered although the server does not let us look at the log's size."""
    monkeypatch.setattr(group_commit_module, "LOG_BYTES_MAX", 1)
    async with EmbeddedValkey(tmp_path) as server, open_store(server.url, "test") as store:
        connection = store.new_connection("test")
        await connection.call("ACL", "SETUSER", "default", "-memory")
        await connection.close()
        results = await asyncio.gather(*(store.commit(0, write(f"s{n}")) for n in range(256)))

    assert {result.status for result in results} == {"done"}
    assert "the log cannot be trimmed" in caplog.text
