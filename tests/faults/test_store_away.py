"""What must hold while Redis does not answer, and after it does again."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.client.state import Changes, Fold, Resync, Snapshot
from gateway.store.embedded import EmbeddedValkey
from tests.processes import Process, gateways, heard
from tests.support import S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """A Valkey that may be harmed."""
    async with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


@contextmanager
def hung(server: EmbeddedValkey) -> Iterator[None]:
    """Freeze the server: it neither answers nor hangs up."""
    pid = server.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_hung_store_reads_answer_with_their_age_and_writes_are_refused(
    tmp_path: Path, valkey: EmbeddedValkey
) -> None:
    """Redis hangs: sockets stay, reads tell their age, writes get 503 and new sockets 4008."""
    options = ("--redis-url", valkey.url)
    async with (
        gateways("a", data_dir=tmp_path, options=options) as (a,),
        a.socket("/v1/connect?session=s1&name=Ann") as client,
    ):
        await heard(client, "hello")
        with hung(valkey):

            async def lagging() -> bool:
                answer = await a.get("/v1/sessions")
                assert [session["id"] for session in answer.json()["sessions"]] == ["s1"]
                return "gateway-lag-ms" in answer.headers

            await eventually(lagging, within=5 * S)

            refused = await a.request("POST", "/v1/sessions", json={"id": "s2"})
            assert refused.status_code == 503
            assert refused.json()["code"] in ("store_unavailable", "outcome_unknown")
            assert int(refused.headers["retry-after"]) > 0

            async with a.socket("/v1/connect?session=s3") as late:
                bye = await heard(late, "bye")
                assert (bye["code"], bye["reconnect"]) == (4008, True)

            async def unready() -> bool:
                return (await a.get("/readyz")).status_code == 503

            await eventually(unready, within=5 * S)
            assert (await a.get("/livez")).status_code == 200

        await a.ready()
        await client.send('{"type":"update","ref":"1","changes":{"name":"Bob"}}')
        assert (await heard(client, "ack"))["ref"] == "1"
        assert (await a.get("/v1/sessions/s1")).json()["name"] == "Bob"


async def test_store_hangs_under_load_nothing_is_missing_or_doubled(
    tmp_path: Path, valkey: EmbeddedValkey
) -> None:
    """Clients write all the while; afterwards feed, list and what was acknowledged agree."""
    options = ("--redis-url", valkey.url)
    acknowledged: dict[str, int] = {}
    stop = asyncio.Event()

    async def write(process: Process, number: int) -> None:
        async with process.socket(f"/v1/connect?session=s{number}") as client:
            await heard(client, "hello")
            count = 0
            while not stop.is_set():
                count += 1
                label = {"count": str(count)}
                words = {"type": "update", "ref": str(count), "changes": {"labels": label}}
                await client.send(json.dumps(words))
                while (answer := json.loads(await client.recv()))["type"] not in ("ack", "error"):
                    pass
                assert answer["ref"] == str(count)
                if answer["type"] == "ack":
                    acknowledged[f"s{number}"] = count
                await asyncio.sleep(0.06)  # below the rate limit of a socket
            await asyncio.Event().wait()

    async with (
        gateways("a", "b", data_dir=tmp_path, options=options) as (a, b),
        b.socket("/v1/events") as watcher,
        asyncio.TaskGroup() as group,
    ):
        fold = Fold()
        wrong: list[str] = []
        writers = [group.create_task(write((a, b)[n % 2], n)) for n in range(6)]
        reader = group.create_task(read(watcher, fold, wrong))

        async def all_write() -> bool:
            return len(acknowledged) == len(writers)

        await eventually(all_write, within=5 * S)
        with hung(valkey):

            async def noticed() -> bool:
                return "gateway-lag-ms" in (await a.get("/v1/sessions")).headers

            await eventually(noticed, within=5 * S)
            acknowledged.clear()
        await eventually(all_write, within=10 * S)
        stop.set()

        async def settled() -> bool:
            listed = (await a.get("/v1/sessions")).json()["sessions"]
            return fold.sessions == {session["id"]: session for session in listed}

        await eventually(settled, within=5 * S)
        assert wrong == []
        for session_id, count in acknowledged.items():
            assert int(fold.sessions[session_id]["labels"]["count"]) >= count
        for task in (*writers, reader):
            task.cancel()


async def read(watcher: object, fold: Fold, wrong: list[str]) -> None:
    """Fold what *watcher* hears."""
    try:
        async for text in watcher:  # type: ignore[attr-defined]
            message = json.loads(text)
            match message["type"]:
                case "snapshot":
                    page = Snapshot(
                        sessions=message["sessions"],
                        first=True,
                        more=message["more"],
                        position=message["position"],
                    )
                    wrong += fold.apply(page)
                case "events":
                    changes = Changes(events=message["events"], position=message["position"])
                    wrong += fold.apply(changes)
                case "resync":
                    wrong += fold.apply(Resync(reason=message["reason"]))
    except ConnectionClosed as error:
        wrong.append(f"the watcher was closed: {error}")
