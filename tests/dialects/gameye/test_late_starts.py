"""Starts that nothing comes of: a session whose host never connects ends at a deadline."""

import pytest
from msgspec.structs import replace

from gateway.app import running
from gateway.core.command import Connect, Update
from gateway.core.errors import SessionClosed
from gateway.core.model import Session
from gateway.dialects.gameye.render import status
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from tests.dialects.gameye.conftest import Served, begin, listed, serving
from tests.nodes import connection, running_node
from tests.support import S, eventually


async def test_session_whose_host_never_comes_is_dead(settings: Settings, served: Served) -> None:
    """A start that nothing came of ends at its deadline, leaves the list, and is shown as dead."""
    brief = replace(served.context, settings=replace(settings, gameye_start_within_s=0.05))
    async with serving(brief) as url, Served(url, brief).http() as http:
        session_id = await begin(http)
        await eventually(lambda: session_id in served.node.replica.gone)
        assert await listed(http) == []
        dead = (await http.get(f"/session/{session_id}")).json()

    assert dead["status"] == "dead"
    with pytest.raises(SessionClosed) as caught:
        await served.node.find(session_id)
    record = caught.value.record
    assert isinstance(record, Session)
    assert record.closed is not None
    assert (record.closed.outcome, record.closed.reason) == ("expired", "start")
    assert record.closed.at - record.created_at >= 50


async def test_session_that_was_used_is_not_ended_for_a_late_start(
    settings: Settings, served: Served
) -> None:
    """Players who join, a phase and a socket are a start; the deadline is gone for good."""
    brief = replace(served.context, settings=replace(settings, gameye_start_within_s=3600.0))
    async with serving(brief) as url, Served(url, brief).http() as http:
        joined, phased, attached = [await begin(http) for _ in range(3)]
        known = served.node.replica.sessions
        assert known[joined].start_within_ms == 3_600_000
        body = {"session": joined, "players": ["ana"]}
        assert (await http.put("/session/player/join", json=body)).status_code == 200
        leave = await http.request("DELETE", "/session/player/leave", json=body)
        assert leave.status_code == 200
        await served.node.apply(phased, Update(phase="running"))
        await served.node.apply(attached, Connect(connection=connection(served.node)))
        assert {known[one].start_within_ms for one in (joined, phased, attached)} == {None}


async def test_session_waits_for_its_host_for_ever_if_so_set(
    settings: Settings, served: Served
) -> None:
    """With 0 there is no deadline for the start; by default there is one of ten minutes."""
    patient = replace(served.context, settings=replace(settings, gameye_start_within_s=0))
    async with serving(patient) as url, Served(url, patient).http() as http:
        waiting = await begin(http)
    async with served.http() as http:
        usual = await begin(http)

    assert served.node.replica.sessions[waiting].start_within_ms is None
    assert served.node.replica.sessions[usual].start_within_ms == 600_000


async def test_another_node_ends_a_session_whose_host_never_comes(
    settings: Settings, valkey: EmbeddedValkey, prefix: str
) -> None:
    """The deadline is in the record: a start is given up even if the node that made it is gone."""
    brief = replace(settings, gameye_start_within_s=S)
    async with running_node(valkey.url, prefix, name="node-b") as other:
        async with (
            running(brief) as context,
            serving(context) as url,
            Served(url, context).http() as http,
        ):
            session_id = await begin(http)
        assert session_id in other.replica.sessions
        await eventually(lambda: session_id in other.replica.gone, within=5 * S)

        with pytest.raises(SessionClosed) as caught:
            await other.find(session_id)
    assert isinstance(caught.value.record, Session)
    assert status(caught.value.record, 0) == "dead"
