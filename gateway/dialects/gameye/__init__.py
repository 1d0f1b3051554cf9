"""Gameye's Session API over the gateway's sessions."""

from typing import Any

from gateway.context import Context
from gateway.dialects.gameye.openapi import fragment
from gateway.dialects.gameye.routes import OPERATIONS, routes

__all__ = ["describe", "routes", "run"]


def describe() -> dict[str, Any]:
    """Return an OpenAPI fragment: ``paths`` and ``components``."""
    return fragment(OPERATIONS)


async def run(_: Context) -> None:
    """Do nothing: Gameye's clients poll, so there is nothing to tell by itself."""
