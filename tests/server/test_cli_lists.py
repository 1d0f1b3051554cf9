"""Lists and messages of the command line, against a gateway in a process of its own."""

import asyncio
import re
from collections.abc import Iterator
from typing import Final

import pytest

from gateway.client import Gateway, MessageNotice, connect
from gateway.core.public import rfc3339
from tests.server.command import KEY, Served, run, serve
from tests.server.terminal import on_terminal
from tests.support import S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(30)]

TERMINAL: Final = 80  # columns


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that all tests of this file share; each uses sessions of its own."""
    home = tmp_path_factory.mktemp("lists")
    with serve(home, "--admin-key", KEY, "--node-name", "node-a") as running:
        yield running


@pytest.fixture(autouse=True)
def settings(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What people set once to use the command."""
    monkeypatch.setenv("GATEWAY_URL", served.url)
    monkeypatch.setenv("GATEWAY_TOKEN", KEY)


def opened(served: Served, **facts: object) -> str:
    """Open a session and return its id."""

    async def ask() -> str:
        async with Gateway(served.url, token=KEY) as gateway:
            return str((await gateway.open(facts))["id"])

    return asyncio.run(ask())


def test_history_lists_what_was(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """Closed sessions and finished watches are listed, the newest first, with filters and times."""
    ended = [
        opened(served, workspace="past", name=name, watch={"key": f"movie/{name}"})
        for name in ("Ann", "Ben")
    ]
    for session_id in ended:
        assert run(capsys, "close", session_id, "--reason", "enough").code == 0
    wanted = ("history", "--workspace", "past")

    rows = run(capsys, *wanted, "--since", "1h").rows
    documents = run(capsys, *wanted, "--json").lines

    assert [row[0] for row in rows] == ended[::-1]
    assert [row[3:7] for row in rows] == [
        ["closed, enough", name, "", "past"] for name in ("Ben", "Ann")
    ]
    assert [document["session_id"] for document in documents] == ended[::-1]
    assert run(capsys, *wanted, "--limit", "1").rows == rows[:1]
    assert run(capsys, *wanted, "--until", rfc3339(0)).rows == []
    watches = run(capsys, *wanted, "--kind", "watch", "--q", ended[0]).rows
    assert [row[-1] for row in watches] == ["movie/Ann"]


def test_nodes_are_told_with_how_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Each node is a row with state, counts and version; --json is what the API says."""
    [row] = run(capsys, "nodes").rows
    document = run(capsys, "nodes", "--json").json

    assert row[:2] == ["node-a", "alive"]
    assert re.fullmatch(r"\d+\.\d+.*", row[8])
    assert [node["name"] for node in document["nodes"]] == ["node-a"]


def test_message_reaches_who_it_is_for(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """A session hears a topic and a body; without an addressee nothing is sent."""
    heard: list[tuple[str, object]] = []

    async def hear() -> None:
        both = asyncio.Event()

        async def on_message(notice: MessageNotice) -> None:
            heard.append((notice.topic, notice.body))
            if len(heard) == 2:
                both.set()

        async with connect(served.url, token=KEY, workspace="told", on_message=on_message) as me:
            for whom in (("--session", me.id), ("--workspace", "told")):
                said = ("messages", "send", "news", '{"a": 1}', *whom)
                ran = await asyncio.to_thread(run, capsys, *said)
                assert (ran.code, ran.out) == (0, "sent\n")
            await asyncio.wait_for(both.wait(), 5 * S)

    for wrong in (
        ("messages", "send", "news"),
        ("messages", "send", "news", "--everybody", "--session", "x"),
        ("messages", "send", "news", "{", "--everybody"),
    ):
        ran = run(capsys, *wrong)
        assert (ran.code, ran.err.count("\n")) == (1, 1)
    asyncio.run(hear())
    assert heard == [("news", {"a": 1})] * 2


def test_lists_fit_a_small_terminal(served: Served) -> None:
    """At 80 columns each session is one line with a short id, which commands understand."""
    long = "a long name of something " * 4
    session_id = opened(served, workspace="narrow", account=long, name=long, watch={"key": long})
    where = ("--workspace", "narrow")

    listed = on_terminal(served, "sessions", *where, columns=TERMINAL)
    wide = on_terminal(served, "sessions", *where, "--wide", columns=TERMINAL)
    shown = on_terminal(served, "show", session_id[-8:], columns=TERMINAL)
    closed = on_terminal(served, "close", session_id[-8:], columns=TERMINAL)
    past = on_terminal(served, "history", *where, columns=TERMINAL)
    nodes = on_terminal(served, "nodes", columns=TERMINAL)

    for table in (listed, past, nodes):
        lines = plain(table)
        assert len(lines) == 2
        assert max(map(len, lines)) <= TERMINAL
    assert session_id not in listed
    assert session_id[-8:] in listed
    assert session_id in wide
    assert session_id in shown
    assert f"{session_id} is closed" in closed


def plain(shown: str) -> list[str]:
    """Return the lines on a terminal, without their styles."""
    return re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r", "").splitlines()
