"""What the log tells of the store: a line when its state changes, and one when that is over."""

import logging
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

import gateway.app
from gateway.app import running
from gateway.core.errors import StoreUnavailable
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from tests.server.conftest import serving, settings_for
from tests.support import Proxy, S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

DOCUMENT = Path(gateway.app.__file__).parent / "docs" / "logs.md"
PASSWORD = "pw-of-the-test"


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """A Valkey that may be harmed."""
    async with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def settings(valkey: EmbeddedValkey, tmp_path: Path) -> Settings:
    """How the gateway of a test is set up."""
    return replace(settings_for(valkey, "lines"), data_dir=tmp_path)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages about the store, in order."""
    return [record.msg for record in caplog.records if record.name == "gateway.store.roles"]


def last(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    """Return the facts of the last line about the store."""
    [*_, record] = [one for one in caplog.records if one.name == "gateway.store.roles"]
    return vars(record)


async def test_lost_store_is_told_once_and_its_return_with_the_time(
    settings: Settings, valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A dead server has one line within 2 s, however many requests fail, and one at its return."""
    async with (
        Proxy(valkey.url) as proxy,
        serving(replace(settings, redis_url=proxy.url)) as served,
        served.http() as http,
    ):
        async with proxy.cut():
            await eventually(lambda: told(caplog), within=2 * S)
            reason = last(caplog)["reason"]
            for _ in range(3):
                assert (await http.post("/v1/sessions", json={})).status_code == 503
        await eventually(lambda: len(told(caplog)) > 1, within=5 * S)

        assert told(caplog) == ["the store is lost", "the store is back"]
        assert reason
        assert last(caplog)["down_s"]


async def test_hung_store_is_told_within_two_seconds(
    settings: Settings, valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that neither answers nor hangs up is lost as well."""
    pid = valkey.pid
    assert pid
    async with serving(settings):
        os.kill(pid, signal.SIGSTOP)
        try:
            await eventually(lambda: told(caplog), within=2 * S)
            assert last(caplog)["reason"] == "no answer in time"
        finally:
            os.kill(pid, signal.SIGCONT)
        await eventually(lambda: len(told(caplog)) > 1, within=5 * S)

        assert told(caplog) == ["the store is lost", "the store is back"]


async def test_full_store_is_told(
    settings: Settings, valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Above its share of memory the store is full, and below it there is room again."""
    async with serving(settings), Redis.from_url(valkey.url) as client:
        await client.config_set("maxmemory", 1)
        await eventually(lambda: told(caplog), within=2 * S)
        await client.config_set("maxmemory", 0)
        await eventually(lambda: len(told(caplog)) > 1, within=10 * S)

        assert told(caplog) == ["the store is full", "the store has room again"]
        assert last(caplog)["down_s"]


async def test_forbidden_command_is_told_with_its_key(
    settings: Settings, valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A right that is taken away is named with command and key, and so is its return."""
    async with serving(settings) as served, served.http(None) as http:
        async with Redis.from_url(valkey.url) as client:
            await client.execute_command("ACL", "SETUSER", "default", "-evalsha")  # type: ignore[no-untyped-call]
            await eventually(lambda: told(caplog), within=2 * S)
            assert (last(caplog)["command"], (await http.get("/readyz")).status_code) == (
                "EVALSHA",
                503,
            )
            assert "{lines:0}:meta" in str(last(caplog)["keys"])
            await client.execute_command("ACL", "SETUSER", "default", "+evalsha")  # type: ignore[no-untyped-call]
        await eventually(lambda: len(told(caplog)) > 1, within=5 * S)

        assert told(caplog) == [
            "the store forbids a command",
            "the store permits a command again",
        ]
        assert (await http.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    "url, reason",
    [
        ("redis://127.0.0.1:1", "cannot be reached: connection refused."),
        ("redis://localhost:1", "cannot be reached: connection refused."),
        ("redis://no-such-host.invalid", "cannot be reached: unknown host."),
        ("unix:///no/such/socket", "cannot be reached: no such file or directory."),
    ],
)
async def test_start_without_a_store_names_the_cause(
    settings: Settings, url: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps a gateway from its store is told in the words of people."""
    monkeypatch.setattr(gateway.app, "START_S", 0)
    with pytest.raises(StoreUnavailable, match=re.escape(reason)):
        async with running(replace(settings, redis_url=url)):
            pass


@pytest.mark.parametrize(
    "rights, reason",
    [
        (("off",), "cannot be reached: authentication failed: "),
        (("on", f">{PASSWORD}x"), "cannot be reached: authentication failed: "),
        (
            ("on", f">{PASSWORD}", "~lines*", "+@all"),
            "NOPERM for HSETNX on {lines:0}:meta (",
        ),
    ],
)
async def test_start_without_a_right_names_it(
    settings: Settings, valkey: EmbeddedValkey, rights: tuple[str, ...], reason: str
) -> None:
    """A wrong password, and a right that is missing with command and key, end the start at once."""
    async with Redis.from_url(valkey.url) as client:
        await client.execute_command("ACL", "SETUSER", "gw", *rights)  # type: ignore[no-untyped-call]
    url = valkey.url.replace("unix://", f"unix://gw:{PASSWORD}@")
    with pytest.raises(StoreUnavailable, match=re.escape(reason)):
        async with running(replace(settings, redis_url=url)):
            pass


async def test_documented_rights_suffice(
    settings: Settings, valkey: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    """A user with the documented ACL line, and no other right, is all that a gateway needs."""
    [line] = re.findall(r"^ACL SETUSER (.+)$", DOCUMENT.read_text(), re.MULTILINE)
    rights = line.replace("PASSWORD", PASSWORD).replace("{gateway:", "{lines:").split()
    async with Redis.from_url(valkey.url) as client:
        await client.execute_command("ACL", "SETUSER", *rights)  # type: ignore[no-untyped-call]
    url = valkey.url.replace("unix://", f"unix://{rights[0]}:{PASSWORD}@")
    with caplog.at_level(logging.DEBUG):
        async with serving(replace(settings, redis_url=url)) as served, served.http() as http:
            node = served.node
            opened = await http.post("/v1/sessions", json={"id": "s1"})
            closed = await http.delete("/v1/sessions/s1")
            history = await http.get("/v1/history?kind=session")
            unknown = await http.get("/v1/sessions/s2")
            await node.store.forget_gone(0, ["s1"])
            await node.store.trim_history(0, node.clock.now_ms())
            await node.store.forget_node("other")

    assert [one.status_code for one in (opened, closed, history, unknown)] == [201, 200, 200, 404]
    assert told(caplog) == []
