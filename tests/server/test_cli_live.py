"""The command line with a gateway: ``serve`` as a process, and everything that talks to it."""

import asyncio
import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli.serving import bind
from gateway.client import Gateway, connect
from tests.server.command import KEY, Ran, Served, environment, run, serve, start
from tests.server.terminal import on_terminal, terminal
from tests.support import S

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(30),  # processes that import a whole server
]

NAME = "Ann \x1b[31m\u202e[bold]"  # nobody should choose such a name


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that all tests of this file share; each uses sessions of its own."""
    with serve(tmp_path_factory.mktemp("served"), "--admin-key", KEY) as running:
        yield running


@pytest.fixture(autouse=True)
def settings(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What people set once to use the command."""
    monkeypatch.setenv("GATEWAY_URL", served.url)
    monkeypatch.setenv("GATEWAY_TOKEN", KEY)


def opened(served: Served, session_id: str, **facts: object) -> None:
    """Open a session."""

    async def ask() -> None:
        async with Gateway(served.url, token=KEY) as gateway:
            await gateway.open({"id": session_id, **facts})

    asyncio.run(ask())


# --- serve


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_serve_tells_its_url_and_stops_cleanly(tmp_path: Path, how: signal.Signals) -> None:
    """A gateway says where it is when it is ready, and a signal ends it with exit code 0."""
    with serve(tmp_path, "--admin-key", KEY, "--log-format", "json") as served:
        with urllib.request.urlopen(f"{served.url}/readyz", timeout=2) as reply:  # noqa: S310
            assert reply.status == 200
        ran = served.stop(how)

    assert ran.code == 0
    assert ran.out == ""
    assert json.loads(served.greeting[0])["url"] == served.url
    assert "Traceback" not in ran.err
    assert all(json.loads(line)["level"] == "info" for line in ran.err.splitlines())


def test_serve_without_auth_makes_a_key_that_the_commands_find(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing configured, the example in the greeting works as it stands."""
    monkeypatch.delenv("GATEWAY_TOKEN")
    with serve(tmp_path, lines=3) as served:
        monkeypatch.setenv("GATEWAY_DATA_DIR", str(served.data_dir))
        assert "loopback only" in served.greeting[1]
        assert str(served.data_dir / "admin_key") in served.greeting[2]
        assert run(capsys, "sessions", "--url", served.url).code == 0
        assert run(capsys, "sessions", "--url", served.url, "--token", "wrong").code == 1
        assert served.stop().code == 0


def test_serve_says_in_one_line_why_it_cannot_start(served: Served, tmp_path: Path) -> None:
    """A port in use, an unreachable store and an unusable folder exit with 1 and one line."""
    port = served.url.rpartition(":")[2]
    (tmp_path / "file").touch()
    pem = str(tmp_path / "file")
    for flags, reason in (
        (("--port", "0", "--tls-cert", pem, "--tls-key", pem), "PEM"),
        (("--port", port), f"cannot listen on 127.0.0.1 port {port}: Address already in use"),
        (("--port", "0", "--redis-url", "redis://u:pw@127.0.0.1:1"), "store cannot be reached"),
        (("--port", "0", "--data-dir", str(tmp_path / "file" / "x")), "data directory"),
    ):
        with start(["serve", "--admin-key", KEY, *flags], environment(tmp_path)) as process:
            out, err = process.communicate(timeout=10 * S)

        assert (process.returncode, out) == (1, "")
        assert err.startswith("gateway: cannot start: ")
        assert reason in err
        assert len(err.splitlines()) == 1
        assert "pw" not in err.replace("password", "")


@pytest.mark.parametrize(
    "flags",
    [
        ("--port", "abc"),
        ("--bogus", "x" * 100),
        ("--log-level",),
        ("--host", "0.0.0.0"),  # noqa: S104 - refused without auth
        ("--tls-cert", __file__, "--tls-key", __file__),
        ("--port", "0", "--redis-url", "redis://127.0.0.1:1"),
    ],
)
def test_failing_start_is_told_in_json_if_asked(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A program that reads JSON reads why a gateway does not start as well."""
    with start(["serve", "--log-format", "json", *flags], environment(tmp_path)) as process:
        out, err = process.communicate(timeout=10 * S)

    assert (process.returncode in (1, 2), out) == (True, "")
    [line] = map(json.loads, err.splitlines())
    assert (line["level"], line["message"]) == ("critical", "cannot start")
    assert line["reason"]


def test_no_token_is_in_a_log(tmp_path: Path) -> None:
    """At the most talkative level, no line holds a token of an address, a header or an offer."""

    async def visit(url: str) -> None:
        async with connect(url, token=KEY, name="Ann"), Gateway(url, token=KEY) as gateway:
            await gateway.stats()
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET /v1/events?token={KEY} HTTP/1.1\r\nHost: {host}\r\n".encode()
            + b"Connection: close\r\n\r\n"
        )
        assert await reader.read()
        writer.close()
        await writer.wait_closed()

    with serve(tmp_path, "--admin-key", KEY, "--log-level", "debug") as served:
        asyncio.run(visit(served.url))
        assert KEY not in served.stop().err


def test_address_is_taken_once() -> None:
    """Every address of a name is bound at one port, and a second bind is refused."""
    sockets = bind("localhost", 0)
    try:
        ports = {one.getsockname()[1] for one in sockets}
        assert len(ports) == 1
        for one in sockets:
            one.listen()
        with pytest.raises(OSError, match="cannot listen on localhost port"):
            bind("localhost", ports.pop())
    finally:
        for one in sockets:
            one.close()


# --- look and order


def test_sessions_are_lines_with_tabs_for_programs(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipe a session is a line without header or colour; --json is one object a line."""
    opened(served, "list-1", name=NAME, account="ann", labels={"env": "list"})
    opened(served, "list-2", workspace="w", labels={"env": "list"})
    wanted = ("sessions", "--label", "env=list")

    rows = run(capsys, *wanted).rows
    lines = run(capsys, *wanted, "--json").lines

    assert [row[:5] for row in rows] == [
        ["list-1", "idle", "Ann \\x1b[31m\\u202e[bold]", "ann", ""],
        ["list-2", "idle", "", "", "w"],
    ]
    assert [line["id"] for line in lines] == ["list-1", "list-2"]
    assert lines[0]["name"] == NAME
    assert [row[0] for row in run(capsys, *wanted, "--sort", "-created_at").rows] == [
        "list-2",
        "list-1",
    ]
    assert len(run(capsys, *wanted, "--limit", "1").rows) == 1
    assert run(capsys, *wanted, "--connected").rows == []
    assert len(run(capsys, *wanted, "--no-connected").rows) == 2
    assert [row[0] for row in run(capsys, *wanted, "--workspace", "w").rows] == ["list-2"]


def test_sessions_are_a_table_on_a_terminal(served: Served) -> None:
    """People get a header and relative times; ids are whole, names cannot use the terminal."""
    opened(served, "a-rather-long-id-of-a-session-that-is-on-a-terminal", name=NAME)

    shown = on_terminal(served, "sessions", "--q", "on-a-terminal")
    plain = on_terminal(served, "sessions", "--q", "on-a-terminal", NO_COLOR="1")

    assert "ID" in shown
    assert "NAME" in shown
    assert "ago" in shown
    assert "WORKSPACE" not in shown
    assert "a-rather-long-id-of-a-session-that-is-on-a-terminal" in shown
    assert "\x1b[31m" not in shown
    assert "\u202e" not in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain)


def test_session_is_shown_until_its_tombstone_is_gone(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """``show`` has all there is of a session, its end included; an unknown one exits with 3."""
    opened(served, "show-1", attributes={"deep": {"er": 1}})

    rows = dict(run(capsys, "show", "show-1").rows)
    closed = run(capsys, "close", "show-1", "--reason", "enough")
    after = run(capsys, "show", "show-1", "--json")

    assert rows["id"] == "show-1"
    assert rows["attributes.deep.er"] == "1"
    assert (closed.code, closed.out) == (0, "show-1 is closed\n")
    assert after.code == 0
    assert after.json["closed"]["reason"] == "enough"
    unknown = run(capsys, "show", "never-was")
    assert (unknown.code, unknown.out) == (3, "")
    assert unknown.err.startswith("gateway: not_found: ")


def test_close_is_scheduled_moved_cancelled_and_done(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Durations, reason and extension reach the session; what is refused has its error's code."""
    opened(served, "close-1")

    first = run(
        capsys, "close", "close-1", "--after", "2m", "--reason", "bye", "--extend-max", "90s"
    )
    shown = run(capsys, "show", "close-1", "--json").json
    moved = run(capsys, "close", "close-1", "--after", "1h", "--json")

    assert first.code == 0
    assert first.out.startswith("close-1 closes at 20")
    assert shown["state"] == "closing"
    assert shown["closing"]["reason"] == "bye"
    assert shown["closing"]["extend_max_ms"] == 90_000
    assert moved.json["closes_at"] > shown["closes_at"]
    assert run(capsys, "cancel", "close-1").out == "close-1 stays open\n"
    again = run(capsys, "cancel", "close-1")
    assert (again.code, again.err.split(": ")[1]) == (1, "not_closing")
    assert run(capsys, "close", "close-1").code == 0
    gone = run(capsys, "close", "close-1")
    assert (gone.code, gone.err.split(": ")[1]) == (3, "session_closed")


def test_kick_ends_the_connection_only(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """A kicked client is told so, and its session stays; there is nothing to kick then."""

    async def kicked() -> tuple[str, int, Ran]:
        async with connect(served.url, token=KEY, name="Ann") as me:
            ran = await asyncio.to_thread(run, capsys, "kick", me.id)
            closed = await me.wait_closed()
            return me.id, closed.code, ran

    session_id, code, ran = asyncio.run(kicked())

    assert code == 4501
    assert (ran.code, ran.out) == (0, f"{session_id} is disconnected\n")
    assert run(capsys, "kick", session_id).err.startswith("gateway: not_connected: ")
    assert run(capsys, "show", session_id, "--json").json["state"] == "away"


def test_watch_tells_each_event_on_a_line_at_once(served: Served) -> None:
    """A watcher in a pipe reads events as they happen, in order, as text or as JSON."""
    opened(served, "watch-1", name=NAME, labels={"env": "watch"})
    env = environment(served.data_dir.parent, GATEWAY_URL=served.url, GATEWAY_TOKEN=KEY)
    wanted = ["watch", "--label", "env=watch", "--snapshot"]
    with start(wanted, env) as text, start([*wanted, "--json"], env) as documents:
        assert text.stdout
        assert documents.stdout
        there = text.stdout.readline().rstrip("\n").split("\t")
        assert there[1:] == ["snapshot", "watch-1", "Ann \\x1b[31m\\u202e[bold]", "idle"]
        assert json.loads(documents.stdout.readline())["type"] == "snapshot"

        opened(served, "watch-2", name="Bob", account="bob", labels={"env": "watch"})

        at, *came = text.stdout.readline().rstrip("\n").split("\t")
        assert came == ["session.opened", "watch-2", "Bob", "account=bob labels.env=watch"]
        told = json.loads(documents.stdout.readline())
        assert (told["type"], told["session_id"], told["at"]) == ("session.opened", "watch-2", at)

        for process in (text, documents):
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=5 * S)
            assert (process.returncode, err) == (130, "")


def test_watch_on_a_terminal_shows_a_line_an_event(served: Served) -> None:
    """People see clock, type, session, name and news, and names cannot use their terminal."""
    opened(served, "seen-1", name=NAME, labels={"env": "seen"})
    shown = ""

    with terminal(served, "watch", "--label", "env=seen", "--snapshot") as (process, read, _):
        while "seen-1" not in shown:
            shown += read()
        opened(served, "seen-2", account="bob", labels={"env": "seen"})
        while "account=bob" not in shown:
            shown += read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5 * S) == 130

    assert re.search(r"\d\d:\d\d:\d\d\.\d\d\d", shown)
    assert "session.opened" in shown
    assert "Ann \\x1b[31m\\u202e[bold]" in shown
    assert "\x1b[31m\u202e" not in shown


def test_watch_whose_reader_left_ends_without_a_word(served: Served) -> None:
    """A broken pipe is no error: nothing is said, and the exit code is that of SIGPIPE."""
    env = environment(served.data_dir.parent, GATEWAY_URL=served.url, GATEWAY_TOKEN=KEY)
    opened(served, "pipe-0", labels={"env": "pipe"})
    with start(["watch", "--snapshot", "--label", "env=pipe"], env) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        opened(served, "pipe-1", labels={"env": "pipe"})

        assert process.wait(timeout=5 * S) == 141
        assert process.stderr.read() == ""


def test_token_of_little_right_is_told_what_it_lacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A refused token exits with 1; stderr has the code and how to give another."""
    ran = run(capsys, "sessions", "--token", "nobody's")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("gateway: unauthorized: ")
    assert "GATEWAY_TOKEN" in ran.err
