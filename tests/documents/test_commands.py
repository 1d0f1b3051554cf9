"""Every command and program in the documents is run, as it stands, against a real gateway.

Only the port is another one. A command that serves is started and left alone until it is ready; one
that follows what happens is stopped when it has said something. What cannot be run here says why
behind its fence: ``sh not run: <reason>``.
"""

import asyncio
import itertools
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from gateway.settings import Settings
from tests.documents.fences import ALL, PAGES, ROOT, Fence, fences, of
from tests.processes import reserved_port
from tests.server.command import environment
from tests.server.conftest import Gateway, serving
from tests.support import S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

SERVES: Final = re.compile(r"^(scripts/serve|gateway serve|\S+/gateway serve)\b")
FOLLOWS: Final = re.compile(
    r"^(curl -sSN |python -m websockets |(\S+/)?gateway (watch|top|audit)\b)"
)
SHELL: Final = ("sh", "bash", "shell", "console")
NOT_RUN_MAX: Final = 12  # on all pages together
PRELUDE: Final = """
set -euo pipefail
echo fail-with-body >~/.curlrc
follow() {
    : >followed
    "$@" >followed 2>&1 </dev/null &
    local pid=$!
    until [[ -s followed ]]; do kill -0 $pid; sleep 0.02; done
    kill $pid 2>/dev/null || true
    wait $pid || true
}
serve() {
    "$@" >served 2>&1 &
    echo $! >pid
    until grep -q ' is ready at ' served; do
        kill -0 $! || { cat served >&2; exit 1; }
        sleep 0.05
    done
}
trap '[[ ! -s pid ]] || kill $(<pid)' EXIT
"""


def commands(code: str) -> str:
    """Return the commands of a block with what this test must do about some of them."""
    lines = []
    for line in code.replace("\\\n", " ").splitlines():
        if re.match(r"scripts/test\b", line):  # it runs this test
            continue
        if SERVES.match(line):
            lines.append(f"serve {line}")
        elif FOLLOWS.match(line):
            lines.append(f"follow {line}")
        else:
            lines.append(line)
    return "\n".join(lines)


def local(code: str, port: int | str) -> str:
    """Return code with the port and the places of this test in it."""
    code = re.sub(r"\b8080\b", str(port), code)
    code = re.sub(r"(?<![\w/.])scripts/", f"{ROOT}/scripts/", code)
    return code.replace(".venv/bin/", f"{Path(sys.executable).parent}/")


async def run(*command: str | Path, place: Path, within: float = 20 * S) -> str:
    """Run a program to its end and return what it wrote; it and all that it started end with it."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=place,
        env={
            **environment(place),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "80",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(within):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    assert process.returncode == 0, f"{out.decode()[-2000:]}\n{err.decode()[-4000:]}"
    return out.decode()


@asynccontextmanager
async def gateway_of_the_documents(settings: Settings) -> AsyncIterator[Gateway]:
    """Serve with the key that the documents use, and with two sessions."""
    async with serving(replace(settings, admin_key="K")) as gateway:
        async with gateway.http("K") as http:
            for name in ("Ann", "Ben"):
                session = {"name": name, "workspace": "ws-7", "watch": {"key": "movie/1"}}
                assert (await http.post("/v1/sessions", json=session)).status_code == 201
        yield gateway


def shape(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return what stays the same of JSON when it is made again: its members and types."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value).__name__


def examples(page: str) -> dict[int, Fence]:
    """Return the JSON that a page shows as the output of the commands before it, by their line."""
    blocks = list(fences(page))
    return {
        before.line: after
        for before, after in itertools.pairwise(blocks)
        if before.language in SHELL and after.language == "json" and after.code[0] == "{"
        if '"type"' not in after.code.splitlines()[1]
    }


@pytest.mark.parametrize("page", sorted({fence.page for fence in of(*SHELL)}))
async def test_commands_of_a_page_work(settings: Settings, tmp_path: Path, page: str) -> None:
    """All commands of a page work one after the other, and print JSON as the page shows it."""
    blocks = [fence for fence in fences(page) if fence.language in SHELL and not fence.skipped]
    script = PRELUDE + "".join(
        f"echo '>>> {block.line}'\n{commands(block.code)}\n" for block in blocks
    )
    if any(SERVES.search(line) for block in blocks for line in block.code.splitlines()):
        printed = await run("bash", "-c", local(script, reserved_port()), place=tmp_path)
    else:
        async with gateway_of_the_documents(settings) as gateway:
            port = gateway.url.rpartition(":")[2]
            printed = await run("bash", "-c", local(script, port), place=tmp_path, within=60 * S)

    said = {
        int(part.partition("\n")[0]): part.partition("\n")[2] for part in printed.split(">>> ")[1:]
    }
    for line, example in examples(page).items():
        assert shape(json.loads(said[line])) == shape(json.loads(example.code)), example


@pytest.mark.parametrize("fence", of("python"), ids=str)
async def test_program_works(settings: Settings, tmp_path: Path, fence: Fence) -> None:
    """A program in Python does what it should against a gateway with a few sessions."""
    async with gateway_of_the_documents(settings) as gateway:
        program = tmp_path / "program.py"
        program.write_text(local(fence.code, gateway.url.rpartition(":")[2]))
        if "async for item in feed" in fence.code:  # it never ends by itself
            line = f"{PRELUDE}\nfollow python -u {program}; cat followed"
            assert "2 sessions" in await run("bash", "-c", line, place=tmp_path)
        else:
            await run(sys.executable, program, place=tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_block_says_its_language(page: str) -> None:
    """A block without a language would not be run, and nobody would notice."""
    marks = re.findall(r"^ *```.*$", PAGES[page].read_text(), re.MULTILINE)

    assert [mark for mark in marks[::2] if not re.match(r" *```\w", mark)] == []
    assert len(marks) == 2 * len(list(fences(page)))


def test_few_commands_are_not_run() -> None:
    """What is not run says why, and there is little of it."""
    skipped = [fence for fence in ALL if fence.skipped]

    assert len(skipped) <= NOT_RUN_MAX
    known = {*SHELL, "python", "html", "json", "text", "toml", "ini", "nginx", "yaml", "promql"}
    known |= {"haproxy", "dockerfile", "sql"}
    assert {fence.language for fence in ALL} <= known
    assert PAGES
