"""``gateway serve --workers``: several nodes behind one port that act as one, and their parent."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.cli.serving import bind
from gateway.client import Gateway
from tests.processes import heard
from tests.server.command import KEY, Ran, Served, environment, run, serve, start
from tests.support import S, eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),  # processes that import a whole server, leases that run out
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="workers are found in /proc"),
]

NAMES = {"a-1", "a-2"}
FLAGS = ("--admin-key", KEY, "--node-name", "a", "--workers", "2")
TRIES = 64  # connections until each worker has one; all fail with a chance of 2 ** -63

FAILING_FORK = """
import os

forks, fork = 0, os.fork


def failing():
    global forks
    forks += 1
    if forks == {failing}:
        raise {error}
    return fork()


os.fork = failing
"""

Opened = dict[str, tuple[ClientConnection, dict[str, Any]]]
"""A connection and its hello, by the node they are of."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A gateway of two workers."""
    with serve(tmp_path, *FLAGS) as gateway:
        yield gateway


def port(served: Served) -> int:
    """Return the one port."""
    return int(served.url.rpartition(":")[2])


def told(pid: int, what: str) -> str:
    """Return a file of /proc about a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/{what}").read_text()
    except OSError:
        return ""


def children(served: Served) -> list[int]:
    """Return all processes that the gateway's has started."""
    pid = served.process.pid
    return list(map(int, told(pid, f"task/{pid}/children").split()))


def lives(pid: int) -> bool:
    """Whether a process has not ended; one that nobody has asked how is a zombie."""
    return told(pid, "stat").rpartition(") ")[2][:1] not in ("", "Z", "X")


def workers(served: Served) -> list[int]:
    """Return those of them that serve, the oldest first; the other one is a Valkey."""
    return [pid for pid in children(served) if "\0serve\0" in told(pid, "cmdline")]


def open_socket(served: Served, path: str) -> connect:
    """Open a WebSocket to whichever worker takes it."""
    return connect(
        served.url.replace("http", "ws") + path,
        additional_headers={"Authorization": f"Bearer {KEY}"},
    )


@asynccontextmanager
async def on_both(served: Served, path: str) -> AsyncIterator[Opened]:
    """Open WebSockets until each worker has got one."""
    async with AsyncExitStack() as stack:
        found: Opened = {}
        for _ in range(TRIES):
            client = await stack.enter_async_context(open_socket(served, path))
            hello = await heard(client, "hello")
            session = hello.get("session")
            found[session["connection"]["node"] if session else hello["node"]] = client, hello
            if found.keys() == NAMES:
                break
        assert found.keys() == NAMES
        yield found


async def hears(watcher: ClientConnection, kind: str, ids: set[str]) -> list[dict[str, Any]]:
    """Return what a watcher is told of this kind about sessions, once it has heard of each."""
    found: dict[str, dict[str, Any]] = {}
    while found.keys() != ids:
        for event in json.loads(await watcher.recv()).get("events", ()):
            if event["type"] == kind and event["session_id"] in ids:
                found[event["session_id"]] = event
    return list(found.values())


async def all_bye(opened: Opened) -> list[tuple[int, bool]]:
    """Return code and advice of the goodbye that each connection gets before it ends."""
    byes = []
    for client, _ in opened.values():
        bye = await heard(client, "bye")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        byes.append((bye["code"], bye["reconnect"]))
    return byes


# --- as one


async def test_workers_act_as_one_gateway(served: Served) -> None:
    """What is opened through one worker is seen, live, and closed through the others."""
    async with (
        on_both(served, "/v1/connect") as clients,
        on_both(served, "/v1/events") as watchers,
        Gateway(served.url, token=KEY) as gateway,
    ):
        ids = {hello["session"]["id"] for _, hello in clients.values()}
        for watcher, _ in watchers.values():
            snapshot = await heard(watcher, "snapshot")
            assert ids <= {session["id"] for session in snapshot["sessions"]}

        for session_id in ids:
            await gateway.close(session_id)
        for watcher, _ in watchers.values():
            await hears(watcher, "session.closed", ids)
        for client, _ in clients.values():
            assert (await heard(client, "bye"))["code"] == 4500


def test_parent_greets_once_and_keeps_the_key(tmp_path: Path) -> None:
    """Without auth there is one key and one greeting, told when all workers serve."""
    with serve(tmp_path, "--workers", "2", lines=3) as served:
        assert str(served.data_dir / "admin_key") in served.greeting[2]
        assert len(workers(served)) == 2
        ran = served.stop()

    assert (ran.code, ran.out) == (0, "")
    assert "all workers are ready" in ran.err
    assert "workers=2" in ran.err


def test_one_worker_is_no_process_of_its_own(tmp_path: Path) -> None:
    """Without ``workers`` the process that was started serves, as ever."""
    with serve(tmp_path, "--admin-key", KEY) as served:
        assert len(children(served)) == 1
        assert workers(served) == []


# --- the start


def test_number_of_workers_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    """A number that makes no sense is refused with the flag's name and the bound."""
    for wrong, why in (("0", ">= 1"), ("65", "<= 64"), ("two", "int")):
        ran = run(capsys, "serve", "--workers", wrong)

        assert ran.code == 2
        assert ran.err.startswith("gateway: --workers: ")
        assert why in ran.err


def test_port_of_workers_is_not_shared_with_strangers(served: Served, tmp_path: Path) -> None:
    """Workers share their port with each other, and not with a gateway that is started later."""
    with pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", port(served))
    flags = [*FLAGS, "--port", str(port(served)), "--data-dir", str(tmp_path / "b")]
    with start(["serve", *flags], environment(tmp_path)) as again:
        out, err = again.communicate(timeout=10 * S)

    assert (again.returncode, out) == (1, "")
    assert err.startswith("gateway: cannot start: ")
    assert len(err.splitlines()) == 1


def test_what_keeps_workers_from_starting_is_told_once(tmp_path: Path) -> None:
    """An unreachable store ends all with exit code 1, and one worker says why."""
    flags = [*FLAGS, "--port", "0", "--redis-url", "redis://127.0.0.1:1"]
    with start(["serve", *flags], environment(tmp_path)) as process:
        out, err = process.communicate(timeout=15 * S)

    assert (process.returncode, out) == (1, "")
    assert err.count("cannot start: store_unavailable") + err.count("store cannot be reached") == 1


# --- the end


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_all_workers_politely(served: Served, how: signal.Signals) -> None:
    """All clients are told to come back, all processes leave, and the exit code is 0."""
    before = children(served)
    async with on_both(served, "/v1/connect") as clients:
        stopping = asyncio.create_task(asyncio.to_thread(served.stop, how))

        assert await all_bye(clients) == [(4001, True)] * 2
        ran = await stopping

    assert ran.code == 0
    assert "Traceback" not in ran.err
    assert len(before) == 3
    assert not any(map(lives, before))


async def test_signal_to_every_process_is_polite_all_the_same(served: Served) -> None:
    """A service manager that signals all processes at once gets what one signal gets."""

    def stop() -> Ran:
        for pid in workers(served):
            os.kill(pid, signal.SIGTERM)
        return served.stop()

    async with on_both(served, "/v1/connect") as clients:
        stopping = asyncio.create_task(asyncio.to_thread(stop))

        assert await all_bye(clients) == [(4001, True)] * 2
        assert (await stopping).code == 0


async def test_second_signal_ends_all_at_once(served: Served) -> None:
    """Whoever does not want to wait for requests on their way says so again."""
    _, writer = await asyncio.open_connection("127.0.0.1", port(served))
    writer.write(b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")

    async with on_both(served, "/v1/connect") as clients:
        served.process.send_signal(signal.SIGTERM)
        await all_bye(clients)
        ran = await asyncio.to_thread(served.stop)

    writer.close()
    assert ran.code == 0
    assert "graceful shutdown exceeded" not in ran.err


async def test_worker_that_hangs_is_killed_in_the_end(served: Served) -> None:
    """One that does not leave when all should at once keeps nobody: it is killed, and told."""
    before = children(served)
    hung, _ = workers(served)
    os.kill(hung, signal.SIGSTOP)
    served.process.send_signal(signal.SIGTERM)
    await eventually(lambda: workers(served) == [hung], within=5 * S)
    ran = await asyncio.to_thread(served.stop)

    assert ran.code == 1
    assert "a worker hangs: it is killed node=a worker=a-1" in ran.err
    assert not any(map(lives, before))


async def test_killed_parent_leaves_nobody(served: Served) -> None:
    """After kill -9 of the parent its workers send their clients away and end, as does Valkey."""
    before = children(served)
    async with on_both(served, "/v1/connect") as clients:
        served.process.kill()

        assert await all_bye(clients) == [(4001, True)] * 2

    await eventually(lambda: not any(map(lives, before)), within=10 * S)
    assert len(before) == 3
    for one in bind("127.0.0.1", port(served)):
        one.close()


# --- a death


async def test_killed_worker_is_replaced_and_its_clients_come_back(served: Served) -> None:
    """A worker that dies takes its sockets along; their sessions go on, on any worker."""
    async with (
        on_both(served, "/v1/connect") as clients,
        on_both(served, "/v1/events") as watchers,
    ):
        lost, hello = clients["a-1"]
        stays, _ = clients["a-2"]
        watcher, _ = watchers["a-2"]
        killed, _ = before = workers(served)
        os.kill(killed, signal.SIGKILL)

        with pytest.raises(ConnectionClosed):
            await lost.recv()
        await eventually(
            lambda: len(workers(served)) == 2 and workers(served) != before, within=5 * S
        )
        session_id = hello["session"]["id"]
        (gone,) = await hears(watcher, "session.disconnected", {session_id})
        assert gone["changes"]["state"] == "away"
        async with on_both(
            served,
            f"/v1/connect?session={session_id}&session_token={hello['session_token']}",
        ) as again:
            assert {found["session"]["id"] for _, found in again.values()} == {session_id}
        await stays.ping()


async def test_worker_that_dies_again_and_again_takes_all_down(served: Served) -> None:
    """When one does not stay alive the gateway gives up, says so, and exits with 1."""
    killed: set[int] = set()

    def has_ended() -> bool:
        found = workers(served)
        if len(found) == 2 and found[-1] not in killed:  # the newest; the other one lives
            os.kill(found[-1], signal.SIGKILL)
            killed.add(found[-1])
        return served.process.poll() is not None

    await eventually(has_ended, within=20 * S)
    _, err = served.process.communicate()

    assert served.process.returncode == 1
    assert len(killed) == 5
    assert "does not start: all stop" in err


@contextmanager
def serve_where_a_fork_fails(home: Path, error: str) -> Iterator[Served]:
    """Serve with two workers; the one that is to replace a dead one cannot be made."""
    (home / "sitecustomize.py").write_text(FAILING_FORK.format(failing=3, error=error))
    flags = ["--port", "0", "--data-dir", str(home / "data"), *FLAGS]
    with start(["serve", *flags], environment(home, PYTHONPATH=str(home))) as process:
        assert process.stdout
        greeting = process.stdout.readline()
        url = greeting.partition(" at ")[2].strip()
        yield Served(process, url, home / "data", (greeting,))


async def test_fork_that_fails_is_tried_again(tmp_path: Path) -> None:
    """A moment in which there is no memory for another process takes nobody down."""
    with serve_where_a_fork_fails(tmp_path, "BlockingIOError(11, 'no room')") as served:
        stays, killed = workers(served)
        os.kill(killed, signal.SIGKILL)
        await eventually(
            lambda: len(workers(served)) == 2 and killed not in workers(served), within=5 * S
        )
        assert stays in workers(served)
        ran = await asyncio.to_thread(served.stop)

    assert ran.code == 0
    assert ran.err.count("a worker ended: it is started again node=a worker=a-2") == 2


async def test_parent_that_fails_lets_its_workers_leave_first(tmp_path: Path) -> None:
    """Whatever goes wrong in the parent: its workers say goodbye while they have a store."""
    with serve_where_a_fork_fails(tmp_path, "RuntimeError") as served:
        before = children(served)
        _, killed = workers(served)
        os.kill(killed, signal.SIGKILL)
        _, err = await asyncio.to_thread(served.process.communicate, timeout=15 * S)

    assert served.process.returncode == 1
    assert "a worker has left node=a worker=a-1" in err
    assert "the store is away" not in err
    assert not any(map(lives, before))
