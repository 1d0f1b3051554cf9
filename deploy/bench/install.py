"""Install: brings the peers here, as far as this machine allows; what it cannot is skipped.

Programs come from Debian, applications' packages from npm and PyPI into ``.cache``. Everything is
done once and again when the lists in ``peers/`` change. Servers that Debian starts on installation
are not: policy-rc.d forbids it for the moment.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from machine import CACHE, HERE, find

POLICY: Final = Path("/usr/sbin/policy-rc.d")  # asked by Debian before it starts a service
DEBIAN: Final = {
    "gcc": "gcc",
    "nginx": "nginx-light",
    "nats-server": "nats-server",
    "mosquitto": "mosquitto",
    "node": "nodejs",
    "npm": "npm",
}
NCHAN: Final = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
WITHIN_S: Final = 600


def install() -> None:
    """Install what is missing; says what it does, and what failed, on standard error."""
    CACHE.mkdir(exist_ok=True)
    wanted = [package for program, package in DEBIAN.items() if find(program) is None]
    if not NCHAN.exists():
        wanted += ["libnginx-mod-nchan"]
    if wanted:
        _debian(wanted)
    _once("node", HERE / "peers" / "package.json", _npm)
    _once("venv", HERE / "peers" / "requirements.txt", _pip)


def _debian(packages: list[str]) -> None:
    if find("apt-get") is None or os.geteuid() != 0:
        _say(f"Not root on a Debian: {', '.join(packages)} cannot be installed")
        return
    _say(f"Installing {', '.join(packages)} (Debian)")
    with ExitStack() as stack:
        if not POLICY.exists():
            POLICY.write_text("#!/bin/sh\nexit 101\n")
            POLICY.chmod(0o755)
            stack.callback(POLICY.unlink)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _run(["apt-get", "update"], env=env)
        for package in packages:  # one that is unknown here must not stop the others
            _run(
                ["apt-get", "install", "--yes", "--no-install-recommends", package],
                env=env,
            )


def _npm(folder: Path) -> bool:
    (folder / "package.json").write_bytes((HERE / "peers" / "package.json").read_bytes())
    return _run(["npm", "install", "--no-audit", "--no-fund", "--loglevel", "error"], cwd=folder)


def _pip(folder: Path) -> bool:
    if not (folder / "bin" / "python").exists():
        _run([sys.executable, "-m", "venv", str(folder)])
    wanted = str(HERE / "peers" / "requirements.txt")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    return _run([*pip, "install", "--quiet", "--requirement", wanted])


def _once(name: str, source: Path, install_into: Callable[[Path], bool]) -> None:
    folder, stamp = CACHE / name, CACHE / f"{name}.installed"
    if stamp.exists() and stamp.read_bytes() == source.read_bytes():
        return
    _say(f"Installing {source.name} into {folder}")
    folder.mkdir(exist_ok=True)
    if install_into(folder):
        stamp.write_bytes(source.read_bytes())


def _run(
    command: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> bool:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _say(f"{command[0]}: {error}")
        return False
    if done.returncode:
        _say(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
    return done.returncode == 0


def _say(text: str) -> None:
    print(text, file=sys.stderr)
