"""Canaries: secrets that the tests send, looked for in all that gateways of the tests log.

All lines go to files of one folder: those of gateways in this process by a handler, down to the
least important line, and those of gateways in processes of their own by what starts them. When the
last test is over, the files are read once: no line may hold a secret, and none a field that the
table of lines (``gateway/docs/logs.md``) does not name.
"""

import logging
import os
import re
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import DecodeError
from msgspec.json import decode

from gateway.logs.formats import Json

VARIABLE: Final = "TEST_LOGS"  # names the folder, for all processes of one run
FOUND_MAX: Final = 20  # lines that are shown
LINE_MAX: Final = 300  # characters of each

SECRETS: Final = (
    "admin-key-of-the-tests",
    "the-admin-key-of-the-process-tests",
    "the-admin-key",
    "K-of-the-tests",
    "correct horse",
    "pw-of-the-test",
    "hush-hush-hush",
    b64encode(b"admin:admin-key-of-the-tests").decode().rstrip("="),
)
_SECRET: Final = re.compile(
    "|".join(
        (
            *map(re.escape, SECRETS),
            r"eyJ[\w-]+\.eyJ[\w-]+",  # a JWT
            r"[?&](?:token|X-Plex-Token|access_token|password|session_token)=[^…\s]",
            r"\.[A-Za-z0-9_-]{43}\b",  # the secret part of a session's token
            r"(?i:set-cookie|gateway_token=)",
        )
    )
)
_EVERYWHERE: Final = frozenset(
    {"at", "level", "logger", "message", "node", "request_id", "trace_id", "account", "traceback"}
)
_ROW: Final = re.compile(r"^\| `(.+?)` \| \w+ \| (.*?) \|", re.MULTILINE)
_TABLE: Final = Path(__file__).parents[1] / "gateway" / "docs" / "logs.md"


def folder() -> Path:
    """Return the folder of all lines of this run."""
    return Path(os.environ[VARIABLE])


_made: Final[list[str]] = []  # the folder, in the process that made it


def end() -> None:
    """Remove the folder, if this process made it: others of this run still use it."""
    for made in _made:
        shutil.rmtree(made, ignore_errors=True)


def begin() -> None:
    """Let every line of this process be kept from now on."""
    if VARIABLE not in os.environ:
        _made.append(tempfile.mkdtemp(prefix="gateway-logs-"))
        os.environ[VARIABLE] = _made[0]
    handler = logging.FileHandler(folder() / f"in-process-{os.getpid()}.log", delay=True)
    handler.setFormatter(Json())
    ours = logging.getLogger("gateway")
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)


def keep(name: str, text: str) -> None:
    """Keep what a gateway in a process of its own has written."""
    (folder() / f"{name}.log").write_text(text)


def wrong_lines(line: str, table: dict[str, frozenset[str]]) -> Iterator[str]:
    """Yield what is wrong with a line."""
    if _SECRET.search(line):
        yield f"a secret: {line[:LINE_MAX]}"
    try:
        facts = decode(line, type=dict[str, object])
    except DecodeError:
        return  # text for people
    logger = str(facts.get("logger"))
    if not logger.startswith("gateway.") or logger.startswith("gateway.client"):
        return
    unknown = facts.keys() - _EVERYWHERE - table.get(str(facts["message"]), frozenset())
    if unknown:
        yield f"a field that is not documented ({', '.join(sorted(unknown))}): {line[:LINE_MAX]}"


def documented() -> dict[str, frozenset[str]]:
    """Return the fields of each message, as the table has them."""
    rows = _ROW.findall(_TABLE.read_text())
    return {message: frozenset(re.findall(r"`(\w+)`", fields)) for message, fields in rows}


def found() -> list[str]:
    """Return what is wrong in all lines of this run."""
    table, wrong = documented(), []
    for path in sorted(folder().glob("*.log")):
        for line in path.read_text(errors="replace").splitlines():
            wrong += [f"{path.name}: {text}" for text in wrong_lines(line, table)]
    return wrong
