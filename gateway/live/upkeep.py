"""Upkeep: work that is repeated while a node runs; a failure of it is told once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from gateway.core.errors import GatewayError, Unavailable

log = logging.getLogger(__name__)


async def repeat(every_s: float, work: Callable[[], Awaitable[None]]) -> NoReturn:
    """Do *work* again and again until cancelled; the log tells when it begins to fail."""
    about = {"work": work.__name__.strip("_")}
    is_failing = False
    while True:
        await asyncio.sleep(every_s)
        try:
            await work()
        except GatewayError as error:
            if not is_failing:  # of a store that is away there are other lines
                level = logging.DEBUG if isinstance(error, Unavailable) else logging.WARNING
                log.log(level, "upkeep fails", extra={**about, "reason": error.detail})
            is_failing = True
        else:
            is_failing = False
