"""Fixtures of the documents' tests: how their gateway is set up."""

from tests.server.conftest import settings

__all__ = ["settings"]
