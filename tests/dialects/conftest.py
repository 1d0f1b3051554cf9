"""The whole gateway for tests of all dialects at once: every door, with people who may log in."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from msgspec.structs import replace

from gateway.auth.principals import Scope
from gateway.auth.users import Users
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from tests.dialects.house import ACCOUNT, PASSWORD, WORKSPACE, House
from tests.server.conftest import api_key, serving, settings_for

HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ALL = (Scope.CONNECT, Scope.READ, Scope.WRITE, Scope.CLOSE)

Build = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def house_settings(valkey: EmbeddedValkey, prefix: str, tmp_path: Path) -> Settings:
    """How the whole gateway is set up: ``ann`` opens sessions, ``root`` and the admin look on."""
    keys = [
        api_key("ann", "connect", "read", "write", "close", workspace=WORKSPACE, account=ACCOUNT),
        api_key("stranger", "connect", "read", "write", "close", workspace="ws-2"),
        api_key("reader", "read"),
        api_key("nothing"),
    ]
    users = Users(tmp_path / "users.json", hasher=HASHER)
    users.add("root", PASSWORD, scopes=ALL)
    users.add("ann", PASSWORD, scopes=ALL, workspace=WORKSPACE)
    users.add("guest", PASSWORD, scopes=(Scope.CONNECT, Scope.READ))
    users.close()
    return replace(
        settings_for(valkey, prefix),
        data_dir=tmp_path,
        api_keys=tuple(keys),
        gameye_stop_after_s=0.1,
    )


@pytest.fixture
def build(house_settings: Settings) -> Build:
    """Build the whole gateway, or one more node of it, with other settings."""

    @asynccontextmanager
    async def building(**others: object) -> AsyncIterator[House]:
        async with serving(replace(house_settings, **others)) as gateway:
            yield House(gateway)

    return building


@pytest.fixture
async def house(build: Build) -> AsyncIterator[House]:
    """The whole gateway, of its own for each test."""
    async with build() as built:
        yield built
