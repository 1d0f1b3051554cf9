"""Fixtures of the browser tests: a Chromium a module, a site with pages, the client's gateway."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

import gateway as package
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from tests.browser import Browser, attached, launched
from tests.documents.test_examples import web_server
from tests.server.conftest import gateway, http, settings_for

__all__ = ["gateway", "http"]

PAGES: Final = Path(__file__).parent / "pages"
CLIENT: Final = Path(package.__file__).parent / "web" / "client.js"


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Origin of a site with the pages of the tests and the client of this checkout."""
    folder = tmp_path_factory.mktemp("site")
    for path in (*PAGES.iterdir(), CLIENT):
        (folder / path.name).symlink_to(path)
    with web_server(folder) as found:
        yield found


@pytest.fixture(scope="session")
def insecure_origin(origin: str) -> str:
    """The same site on plain HTTP by a name, where a browser has no Web Locks."""
    return origin.replace("127.0.0.1", "page.test")


@pytest.fixture
def settings(valkey: EmbeddedValkey, prefix: str, origin: str, insecure_origin: str) -> Settings:
    """How the gateway of a test is set up: pages of both origins may use it."""
    return replace(settings_for(valkey, prefix), allowed_origins=(origin, insecure_origin))


@pytest.fixture(scope="module")
def profile(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Profile of the Chromium of a module."""
    folder = tmp_path_factory.mktemp("profile")
    with launched(chromium, folder, "--host-resolver-rules=MAP *.test 127.0.0.1"):
        yield folder


@pytest.fixture
async def window(profile: Path) -> AsyncIterator[Browser]:
    """A browser window of its own for each test: other cookies, other storage, no other tabs."""
    async with attached(profile) as found:
        await found.isolate()
        yield found
