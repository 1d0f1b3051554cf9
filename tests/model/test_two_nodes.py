"""Two nodes over a real Valkey, against the pure model: random commands, races and time steps.

The model is ``decide`` and ``evolve`` on a dict. Time is wound by hand and lies in the past of
Redis time, so that no deadline is refused as too early and every run is the same.
"""

import asyncio
import secrets
from collections.abc import Coroutine
from itertools import permutations, product
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec import to_builtins
from msgspec.json import decode
from msgspec.structs import replace

from gateway.client.state import Changes, Fold, Item, Snapshot
from gateway.core import command as c
from gateway.core.errors import GatewayError
from gateway.core.event import AnyEvent
from gateway.core.model import Connection, Session, Stream, Watch
from gateway.core.query import Filter, View, Visibility
from gateway.core.session import advance, deadlines, decide
from gateway.live.channel import Subscription
from gateway.live.outbound import OutboundMessage, SnapshotPage, Tick
from gateway.node import Node
from gateway.store.clock import RedisClock
from gateway.store.embedded import EmbeddedValkey
from gateway.store.keys import keys
from gateway.store.store import Store
from tests.nodes import blank, token

START_MS = 1_700_000_000_000
IDS = ("s1", "s2", "s3")
VIEWS = (
    View(visibility=Visibility("all"), full=True),
    View(filter=Filter(labels={"color": "red"}), visibility=Visibility("workspace", "w")),
    View(filter=Filter(connected=True), visibility=Visibility("all")),
)


class HandClock(RedisClock):
    """Redis time that stands still until it is moved."""

    hand_ms = START_MS

    def now_ms(self) -> int:
        """Return the time that was set."""
        return self.hand_ms


commands = st.one_of(
    st.builds(
        lambda name, displace, readmit: (name, displace, readmit),
        st.sampled_from(["c1", "c2"]),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(
        lambda name, cause: c.Disconnect(connection=name, cause=cause),
        st.sampled_from(["c1", "c2"]),
        st.sampled_from(["clean", "lost", "server"]),
    ),
    st.just(c.Kick()),
    st.builds(lambda key: c.StartWatch(watch=Watch(key=key)), st.sampled_from(["m1", "m2"])),
    st.builds(lambda ms: c.Progress(position_ms=ms), st.integers(0, 3)),
    st.just(c.Unwatch()),
    st.just(c.Report()),
    st.builds(lambda color: c.Update(labels={"color": color}), st.sampled_from(["red", "blue"])),
    st.builds(lambda ms: c.Update(linger_ms=ms), st.sampled_from([None, 0, 2000])),
    st.builds(
        lambda key: c.StartStream(stream=Stream(key=key, kind="k")), st.sampled_from(["t1", "t2"])
    ),
    st.builds(lambda key: c.EndStream(key=key), st.sampled_from(["t1", "t2"])),
    st.builds(lambda name: c.Join(members=(name,)), st.sampled_from(["ann", "bob"])),
    st.builds(lambda name: c.Leave(members=(name,)), st.sampled_from(["ann", "bob"])),
    st.builds(
        lambda after_ms, extend_ms: (after_ms, extend_ms),
        st.integers(0, 3000),
        st.sampled_from([0, 2000]),
    ),
    st.builds(lambda after_ms: ("extend", after_ms), st.integers(0, 5000)),
    st.just(c.CancelClose()),
    st.just(c.Saving()),
    st.just(c.Saved()),
    st.just(c.Close(outcome="left")),
)


def plain(session: Session | None) -> dict[str, Any] | None:
    """Return what must be equal: everything but the number and the operations."""
    return to_builtins(replace(session, number=0, ops=())) if session else None


def item(delivery: OutboundMessage) -> Item:
    """Return what a subscriber was told, as the client's fold takes it."""
    message = decode(delivery.message)
    if isinstance(delivery, SnapshotPage):
        return Snapshot(
            sessions=message["sessions"],
            first=True,
            more=message["more"],
            position=message["position"],
        )
    assert isinstance(delivery, Tick)
    return Changes(events=message["events"], position=message["position"])


class TwoNodes(RuleBasedStateMachine):
    """Every command goes to one of two nodes; both must agree with the model at every step."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.prefix = f"model-{secrets.token_hex(4)}"
        self.model: dict[str, Session] = {}
        self.clock_ms = START_MS
        self.nodes: list[Node] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.subscriptions: list[tuple[View, Any, Subscription, Fold]] = []
        self.run(self.begin())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
        """Run *work* on this machine's own loop."""
        return self.loop.run_until_complete(asyncio.wait_for(work, 8))

    async def begin(self) -> None:
        """Start both nodes and their watchers."""
        for name in ("a", "b"):
            clock = HandClock(lambda: self.loop.time() * 1000)
            store = Store(self.url, clock, prefix=self.prefix)
            await store.open(token)
            link = store.new_connection("test")
            meta = keys(self.prefix, 0).meta
            await link.call("HSET", meta, "up_since", 1, "beat", 2**52)
            await link.close()
            node = Node(store, clock, name=name, boot=name, token=token)
            await node.start()
            self.nodes.append(node)
            self.tasks.append(self.loop.create_task(node.run()))
            await node.replicator.caught_up()
        for node in self.nodes:
            for view in VIEWS:
                guard = node.subscribe(view)
                self.subscriptions.append((view, guard, guard.__enter__(), Fold()))

    def teardown(self) -> None:
        """End everything that :meth:`begin` started."""
        self.run(self.end())
        self.loop.close()

    async def end(self) -> None:
        """Stop both nodes."""
        for _, guard, _, _ in self.subscriptions:
            guard.__exit__(None, None, None)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for node in self.nodes:
            await node.store.close()

    # --- what the model says

    def expected(
        self, session: Session | None, command: c.AnyCommand
    ) -> tuple[Session | None, str | None]:
        """Return what the model makes of *command*: the session after it and the error's code."""
        try:
            events: list[AnyEvent] = decide(session, command, self.clock_ms)
        except GatewayError as error:
            return session, error.code
        if not events:
            return session, None if session else "not_found"
        return advance(session, events, "op", self.clock_ms), None

    def made(self, drawn: object, node: int) -> c.AnyCommand:
        """Return the command that was drawn, with absolute times."""
        match drawn:
            case (str("extend"), int(after_ms)):
                return c.ExtendClose(at=self.clock_ms + after_ms)
            case (int(after_ms), int(extend_ms)):
                return c.RequestClose(at=self.clock_ms + after_ms, extend_max_ms=extend_ms)
            case (str(name), bool(displace), bool(readmit)):
                connection = Connection(
                    id=name, node=self.nodes[node].id, connected_at=self.clock_ms
                )
                return c.Connect(connection=connection, displace=displace, readmit=readmit)
        assert isinstance(drawn, c.Command)
        return drawn  # type: ignore[return-value]

    async def done(self, node: int, session_id: str, command: c.AnyCommand) -> str | None:
        """Do *command* on a node; return the error's code."""
        try:
            if isinstance(command, c.Open):
                await self.nodes[node].open(command.session)
            else:
                await self.nodes[node].apply(session_id, command)
        except GatewayError as error:
            return error.code
        return None

    # --- rules

    @rule(
        node=st.integers(0, 1),
        session_id=st.sampled_from(IDS),
        linger_ms=st.sampled_from([None, 0, 1000]),
        keepalive_ms=st.sampled_from([None, 1500]),
        workspace=st.sampled_from([None, "w"]),
    )
    def open(
        self,
        node: int,
        session_id: str,
        linger_ms: int | None,
        keepalive_ms: int | None,
        workspace: str | None,
    ) -> None:
        """Open a session, or try to."""
        session = blank(
            session_id, linger_ms=linger_ms, keepalive_ms=keepalive_ms, workspace=workspace
        )
        self.step(node, session_id, c.Open(session=session))

    @rule(node=st.integers(0, 1), session_id=st.sampled_from(IDS), drawn=commands)
    def ask(self, node: int, session_id: str, drawn: object) -> None:
        """Send one command to one node."""
        self.step(node, session_id, self.made(drawn, node))

    def step(self, node: int, session_id: str, command: c.AnyCommand) -> None:
        """Do one command on a node and in the model."""
        after, code = self.expected(self.model.get(session_id), command)
        assert self.run(self.done(node, session_id, command)) == code
        if after:
            self.model[session_id] = after
        self.expire()

    @rule(session_id=st.sampled_from(IDS), first=commands, second=commands)
    def race(self, session_id: str, first: object, second: object) -> None:
        """Two commands at once, one a node: the outcome is that of one of the two orders."""
        asked = [self.made(first, 0), self.made(second, 1)]

        async def both() -> list[str | None]:
            return list(
                await asyncio.gather(
                    *(self.done(node, session_id, command) for node, command in enumerate(asked))
                )
            )

        codes = self.run(both())
        possible = []
        for order, hurry in product(permutations((0, 1)), (False, True)):
            session = self.model.get(session_id)
            told: list[str | None] = [None, None]
            for node in order:
                session, told[node] = self.expected(session, asked[node])
                if hurry:  # a closer may be faster than the second command
                    session = self.expired(session)
            possible.append((told, plain(session), session))
        self.run(self.level())
        seen = plain(self.nodes[0].replica.sessions.get(session_id))
        matching = [
            session
            for told, shown, session in possible
            if told == codes and (seen == shown or (session and session.closed and not seen))
        ]
        assert matching, (codes, seen, possible)
        if matching[0]:
            self.model[session_id] = matching[0]
        self.expire()

    @rule(after_ms=st.integers(1, 3000))
    def wait(self, after_ms: int) -> None:
        """Let time pass."""
        self.clock_ms += after_ms
        for node in self.nodes:
            assert isinstance(node.clock, HandClock)
            node.clock.hand_ms = self.clock_ms
        self.expire()

    def expire(self) -> None:
        """Let every deadline that has passed fire, here and in the model, until none is left."""
        for _ in range(4):
            for session_id, session in self.model.items():
                self.model[session_id] = self.expired(session) or session
            self.run(self.fire())

    def expired(self, session: Session | None) -> Session | None:
        """Return the session after every deadline of it that has passed."""
        for kind, at, _ in sorted(deadlines(session), key=lambda due: due[1]) if session else ():
            session, _ = self.expected(session, c.Expire(kind=kind, at=at))
        return session

    async def fire(self) -> None:
        """Let both closers act."""
        await self.level()
        for node in self.nodes:
            async with asyncio.TaskGroup() as group:
                node.deadlines.fire(group, self.clock_ms + 50)
        await self.level()

    async def level(self) -> None:
        """Let both nodes reach what the store has."""
        last = (await self.nodes[0].store.meta(0)).offset
        for node in self.nodes:
            await node.replica.barrier.wait_for_offset(0, last)

    # --- invariants

    @invariant()
    def both_replicas_are_the_model(self) -> None:
        """Both nodes hold exactly what the model holds."""
        if not self.nodes:
            return
        self.run(self.level())
        live = {known: plain(s) for known, s in self.model.items() if not s.closed}
        closed = {known: s.revision for known, s in self.model.items() if s.closed}
        for node in self.nodes:
            assert live == {known: plain(s) for known, s in node.replica.sessions.items()}
            assert closed == {known: t.revision for known, t in node.replica.gone.items()}

    @invariant()
    def what_watchers_fold_is_what_the_replica_shows(self) -> None:
        """The fold of each subscription is what a list shows."""
        for view, _, subscription, fold in self.subscriptions:
            self.run(self.read(subscription, fold))
            replica = self.nodes[0].replica
            shown = {
                s.id: decode(replica.rendered(s, full=view.full)) for s in replica.all_in(view)
            }
            assert shown == fold.sessions

    async def read(self, subscription: Subscription, fold: Fold) -> None:
        """Fold everything that is there to read."""
        while True:
            try:
                async with asyncio.timeout(0):
                    delivery = await subscription.next()
            except TimeoutError:
                return
            assert fold.apply(item(delivery)) == []


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_two_nodes_agree_with_the_model_at_every_step(valkey: EmbeddedValkey) -> None:
    """Whatever is asked of either node, in whatever order, all see what the model says."""
    TwoNodes.url = valkey.url
    await asyncio.to_thread(
        run_state_machine_as_test,
        TwoNodes,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
