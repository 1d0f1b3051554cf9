"""Logs: one line per record on stderr, for people or for programs.

Below ``warning`` only loggers of this package are enabled, because libraries log whole requests,
and the query of a request may hold a token. Queries and bearer tokens are removed from every line,
and text of a client can neither start a line nor control a terminal.
"""

import logging
import re
import sys
from typing import Any, Final, Literal

from msgspec.json import encode

from gateway.cli.output import escaped
from gateway.core.public import rfc3339

_OURS: Final = "gateway"
_SECRETS: Final = (
    (re.compile(r"""\?[^\s"'<>]*=[^\s"'<>]*"""), "?…"),  # the query of an address
    (re.compile(r"(?i)\b(bearer[ .]|session\.)[^\s\"',;]+"), r"\1…"),
)
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(log_format: Literal["text", "json"], level: str) -> None:
    """Send all logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Text() if log_format == "text" else Json())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(_OURS).setLevel(level.upper())
    logging.captureWarnings(capture=True)


def sign(node: str) -> None:
    """Add the node's name to every line from now on, because workers share one stderr."""

    def signed(record: logging.LogRecord) -> bool:
        record.node = node
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(signed)


def without_secrets(text: str) -> str:
    """Return *text* without queries of addresses and without bearer and session tokens."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class _Lines(logging.Formatter):
    """The base of both formats."""

    def told(self, record: logging.LogRecord) -> str:
        return without_secrets(record.getMessage())

    def trace(self, record: logging.LogRecord) -> str | None:
        if record.exc_info and record.exc_info[0] is not None:
            return without_secrets(self.formatException(record.exc_info))
        return None

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return what was given as ``extra``."""
        given = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        return {
            name: value if isinstance(value, int | float) else without_secrets(str(value))
            for name, value in given.items()
        }


class Text(_Lines):
    """``time level logger: message``; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of *record*."""
        at = rfc3339(round(record.created * 1000))
        said = " ".join([self.told(record), *(f"{k}={v}" for k, v in self.fields(record).items())])
        lines = [f"{at} {record.levelname.lower()} {record.name}: {escaped(said)}"]
        lines.extend(f"  {escaped(line)}" for line in (self.trace(record) or "").splitlines())
        return "\n".join(lines)


class Json(_Lines):
    """One JSON object a line: ``at, level, logger, message``, and what else there is."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record*."""
        line = {
            **self.fields(record),
            "at": rfc3339(round(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.told(record),
        }
        if trace := self.trace(record):
            line["exception"] = trace
        return encode(line).decode()
