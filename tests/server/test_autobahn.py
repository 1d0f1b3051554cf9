"""Autobahn's cases for WebSocket servers, run against our transport by ``kosoku``."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from gateway.core.frames import Caps
from gateway.transport import Limits
from tests.server.echo import Echo, serve

# websockets answers a close in the middle of a message with 1002, where the suite wants 1000.
KNOWN = {"7.1.5"}
CAPS = Caps(message_bytes=64 << 20, fragments=1 << 20, frames_per_s=1e9)


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_protocol_is_spoken_as_autobahn_wants_it(tmp_path: Path) -> None:
    """All cases but those of limits and compression pass, as far as websockets passes them."""
    async with serve(Echo(), Limits(caps=CAPS)) as served:
        kosoku = str(Path(sys.executable).with_name("kosoku"))
        leave_out = [text for chapter in ("9", "12", "13") for text in ("-x", f"{chapter}.*")]
        process = await asyncio.create_subprocess_exec(
            *(kosoku, "-o", str(tmp_path), *leave_out, f"127.0.0.1:{served.port}"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await process.wait()

    (report,) = json.loads((tmp_path / "index.json").read_text()).values()
    good = {"OK", "NON-STRICT", "INFORMATIONAL"}
    failed = {
        case
        for case, result in report.items()
        if result["behavior"] not in good or result["behaviorClose"] not in good
    }
    assert len(report) == 247
    assert failed == KNOWN
