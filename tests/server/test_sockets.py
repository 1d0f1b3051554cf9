"""Sockets by themselves: when they end, beside what is being done."""

import asyncio

import pytest

from gateway.sockets import Sockets


async def test_drain_beside_a_poll_whose_time_is_just_over() -> None:
    """A request that is ending by itself keeps nobody from being sent elsewhere."""
    sockets = Sockets(1, lambda: 0.5)
    is_over, drained = asyncio.Event(), asyncio.Event()

    async def poll() -> None:
        async with sockets.patience(0):
            try:
                await asyncio.Event().wait()
            finally:
                is_over.set()
                await drained.wait()

    polling = asyncio.create_task(poll())
    await is_over.wait()
    await sockets.drain(0)
    drained.set()
    with pytest.raises(TimeoutError):
        await polling
