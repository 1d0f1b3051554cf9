"""A crowd: sessions that come, change and go by chance."""

import asyncio
from contextlib import suppress
from random import Random
from typing import Final

from gateway.core import command as c
from gateway.core.errors import GatewayError, IdUnavailable
from gateway.core.model import Stream, Watch
from gateway.node import Node
from tests.nodes import blank

NAMES: Final = ("Ann", "<b>Bob</b>", "\u2028", "\u202eevil", "😀", "")
KEYS: Final = ("__proto__", "constructor", "toString", "10", "2", "a", "b")
COLORS: Final = ("red", "blue", "green")
AT_ONCE: Final = 8  # changes at most that are asked for at the same time
CROWDED: Final = 200  # open sessions; from then on one leaves for each that comes


class Crowd:
    """Sessions of a node.

    Args:
        node: Where they are.
        seed: Decides all that they do.
    """

    def __init__(self, node: Node, seed: int) -> None:
        self._node = node
        self._chance = Random(seed)
        self._open: list[str] = []
        self._names = iter(["__proto__", "constructor", *(f"s-{n}" for n in range(100_000))])

    async def act(self, changes: int, *, bulk: int = 0) -> None:
        """Ask for so many changes, a few at a time; *bulk* is how many characters each carries."""
        while changes > 0:
            group = min(changes, self._chance.randint(1, AT_ONCE))
            await asyncio.gather(*(self._one(bulk) for _ in range(group)))
            changes -= group

    async def mark(self) -> None:
        """Change a session that every feed of the test has, so that all have the same position."""
        with suppress(IdUnavailable):
            await self._node.open(blank("mark", labels={"color": "red"}, workspace="ws-1"))
        for key in ("a", "b"):
            await self._node.apply("mark", c.StartWatch(watch=Watch(key=key)))

    async def _one(self, bulk: int) -> None:
        comes = self._chance.random() < (0.2 if len(self._open) < CROWDED else 0.05)
        if comes or not self._open:
            session_id = next(self._names)
            labels = {"color": self._chance.choice(COLORS)}
            workspace = self._chance.choice(["ws-1", "ws-2"])
            await self._node.open(blank(session_id, labels=labels, workspace=workspace))
            self._open.append(session_id)
            return
        session_id = self._chance.choice(self._open)
        with suppress(GatewayError):  # such as the end of what has not begun
            await self._node.apply(session_id, self._command(session_id, bulk))

    def _command(self, session_id: str, bulk: int) -> c.AnyCommand:
        chance = self._chance
        if bulk:
            return c.Update(attributes={"bulk": f"{chance.random():<{bulk}}"})
        key = chance.choice(KEYS)
        match chance.choice("llllnaaawwusSmMqqxc"):
            case "l":
                return c.Update(labels={"color": chance.choice(COLORS), key: chance.choice("ab")})
            case "n":
                return c.Update(name=chance.choice(NAMES) or None)
            case "a":
                values = [{key: {"x": [1, {"y": {}}]}}, {"z": {}}, [key], "text", chance.random()]
                value = chance.choice(values)
                return c.Update(attributes={key: value, "deep": {key: {chance.choice(KEYS): 1}}})
            case "w":
                return c.StartWatch(watch=Watch(key=chance.choice("ab"), title=chance.choice("cd")))
            case "u":
                return c.Unwatch()
            case "s":
                return c.StartStream(stream=Stream(key=key, kind="k", data={key: chance.random()}))
            case "S":
                return c.EndStream(key=key)
            case "m":
                return c.Join(members=(key,))
            case "M":
                return c.Leave(members=(key,))
            case "q":
                at = self._node.now_ms() + 600_000
                return c.RequestClose(at=at, reason=chance.choice("ab"))
            case "x":
                return c.CancelClose()
        self._open.remove(session_id)
        return c.Close()
