"""Lists: rendered in steps, so that a long one holds no other request up."""

import asyncio

from msgspec.json import decode

from gateway.http.endpoint import YIELD_EVERY, list_reply


async def test_long_list_lets_others_through() -> None:
    """Others get their turn after every ``YIELD_EVERY`` rows, and the list is whole."""
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
    assert seen == [YIELD_EVERY, 2 * YIELD_EVERY, 3 * YIELD_EVERY]


async def test_empty_list_is_a_list() -> None:
    """No rows are an empty list."""
    response = await list_reply([], str)

    assert (bytes(response.body), response.media_type) == (b"[]", "application/json")
