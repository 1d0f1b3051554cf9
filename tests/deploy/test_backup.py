"""A backup is made and restored with Debian's Redis, by the commands in the documents."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.documents.fences import fences
from tests.processes import Process, gateways, reserved_port
from tests.support import S, eventually

pytestmark = [pytest.mark.deploy, pytest.mark.slow, pytest.mark.timeout(90)]

BACKUP, RESTORE = (
    fence.code for fence in fences("docs/production") if re.match("redis-", fence.code)
)
OK: Final = httpx2.codes.OK


def works(command: str, place: Path) -> bool:
    """Run commands of the documents and return whether all ended well."""
    return subprocess.run(["/bin/bash", "-euc", command], cwd=place, check=False).returncode == 0


@contextmanager
def redis(command: str, port: int, place: Path) -> Iterator[None]:
    """Run a Redis on *port* within a ``with`` block."""
    line = [*command.split(), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(line, cwd=place, stdout=subprocess.DEVNULL) as server:
        try:
            yield
        finally:
            server.terminate()


async def status(node: Process, session_id: str) -> int:
    """Return the status of a read of a session."""
    return (await node.get(f"/v1/sessions/{session_id}")).status_code


async def test_backup_is_restored_as_the_documents_say(tmp_path: Path) -> None:
    """What was open at the backup is there again, and is kept by the append-only file."""
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        pytest.skip("redis-server is not installed")
    port, data, restored = reserved_port(), tmp_path / "data", tmp_path / "restored"
    restored.mkdir()
    flags = ("--redis-url", f"redis://127.0.0.1:{port}")

    answers = partial(works, f"redis-cli -p {port} ping | grep PONG", tmp_path)

    with redis("redis-server --appendonly yes --maxmemory-policy noeviction", port, tmp_path):
        await eventually(answers, within=5 * S)
        async with gateways("a", data_dir=data, options=flags) as [node]:
            await node.request("POST", "/v1/sessions", json={"id": "kept"})
            assert works(BACKUP.replace("10.0.0.20:6379", f"127.0.0.1:{port}"), tmp_path)
            await node.request("POST", "/v1/sessions", json={"id": "late"})
            assert await status(node, "late") == OK
    (tmp_path / "backup.rdb").rename(restored / "dump.rdb")

    start, *later = RESTORE.replace("redis-cli", f"redis-cli -p {port}").splitlines()
    with redis(start.replace("/var/lib/redis-restored", str(restored)), port, tmp_path):
        await eventually(answers, within=5 * S)
        for line in later:
            await eventually(partial(works, line, tmp_path), within=5 * S)
        async with gateways("a", data_dir=data, options=flags) as [node]:
            assert await status(node, "kept") == OK
            assert await status(node, "late") == httpx2.codes.NOT_FOUND

    kept = start.replace("/var/lib/redis-restored", str(restored)).replace("no ", "yes ", 1)
    with redis(kept, port, tmp_path):
        await eventually(answers, within=5 * S)
        async with gateways("a", data_dir=data, options=flags) as [node]:
            assert await status(node, "kept") == OK
