"""Lists: rendered in steps, so that a long one holds no other request up."""

import asyncio
from itertools import pairwise

from msgspec.json import decode

from gateway.http.endpoint import YIELD_EVERY, list_reply


async def test_long_list_lets_others_through() -> None:
    """Others get a turn at least every ``YIELD_EVERY`` rows, and the list is whole."""
    rows = list(range(3 * YIELD_EVERY + 1))
    rendered: list[int] = []
    seen: list[int] = []

    async def watch() -> None:
        while len(rendered) < len(rows):
            seen.append(len(rendered))
            await asyncio.sleep(0)

    def render(row: int) -> int:
        rendered.append(row)
        return row

    watching = asyncio.create_task(watch())
    response = await list_reply(rows, render)
    await watching

    assert decode(bytes(response.body)) == rows
    turns = [0, *seen, len(rows)]  # on a slow machine there are more of them
    assert all(then - before <= YIELD_EVERY for before, then in pairwise(turns))


async def test_empty_list_is_a_list() -> None:
    """No rows are an empty list."""
    response = await list_reply([], str)

    assert (bytes(response.body), response.media_type) == (b"[]", "application/json")
