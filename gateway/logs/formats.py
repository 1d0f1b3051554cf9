"""Formats: one line per record on stderr, for people or for programs.

Below ``warning`` only loggers of this package are enabled, because libraries log whole requests,
and the query of a request may hold a token. Queries and bearer tokens are removed from every line,
and text of a client can neither start a line nor control a terminal.
"""

import logging
import re
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, Literal

from msgspec.json import encode

from gateway.core.public import rfc3339
from gateway.logs.request import current

FIELD_MAX: Final = 512  # characters of a field; the rest is cut off
TRACEBACK_MAX: Final = 8 * 1024  # characters; of a longer one the beginning is left out

_OURS: Final = "gateway"
_SECRETS: Final = (
    (re.compile(r"""\?[^\s"'<>]*=[^\s"'<>]*"""), "?…"),  # the query of an address
    (re.compile(r"(?i)\b(bearer[ .]|session\.)[^\s\"',;]+"), r"\1…"),
    (re.compile(r"(://[^\s/@:]*):[^\s/@]+@"), r"\1:…@"),  # the password of an address
)
_MARKS: Final = ("?", "://", "bearer", "session.")  # one of them is in what each of those takes out
_STANDARD_MIN: Final = len(vars(logging.makeLogRecord({})))  # those of a record come first
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN: Final = re.compile(r'[^\s"=\\]+')  # a value that needs no quotes

log = logging.getLogger(__name__)


Clean = Callable[[str], str]
"""Takes secrets out of a text."""


class Lines(logging.Formatter):
    """The base of both formats: the facts of a record, in the order of a line."""

    node = ""  # whose lines they are

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record*, without secrets."""
        line = self.line(record, str)
        lower = line.lower()
        if any(mark in lower for mark in _MARKS):  # in hardly any line
            return self.line(record, without_secrets)
        return line

    def line(self, record: logging.LogRecord, clean: Clean) -> str:
        """Return the line of *record*."""
        raise NotImplementedError

    def facts(self, record: logging.LogRecord, clean: Clean) -> dict[str, Any]:
        """Return the fields of *record* that are set, those of the gateway and request first."""
        found: dict[str, Any] = {"node": self.node} if self.node else {}
        if (mark := current.get()) is not None:
            found["request_id"] = mark.request_id
            if mark.trace_id is not None:
                found["trace_id"] = mark.trace_id
            if mark.account is not None:
                found["account"] = mark.account
        for name, value in islice(vars(record).items(), _STANDARD_MIN, None):
            if value is None or name in _STANDARD:
                continue
            is_number = isinstance(value, (int, float))
            found[name] = value if is_number else clean(str(value))[:FIELD_MAX]
        return found

    def told(self, record: logging.LogRecord, clean: Clean) -> str:
        """Return the message; libraries write objects of Python on its other lines."""
        return clean(record.getMessage().partition("\n")[0])

    def trace(self, record: logging.LogRecord) -> str | None:
        """Return the traceback, if there is one; its end says most."""
        if not record.exc_info or record.exc_info[0] is None:
            return None
        return without_secrets(self.formatException(record.exc_info))[-TRACEBACK_MAX:]


class Text(Lines):
    """``time level logger: message name=value``; a traceback follows, indented."""

    def line(self, record: logging.LogRecord, clean: Clean) -> str:
        """Return the lines of *record*."""
        at = rfc3339(round(record.created * 1000))
        facts = [f"{name}={_quoted(value)}" for name, value in self.facts(record, clean).items()]
        said = " ".join([escaped(self.told(record, clean)), *facts])
        lines = [f"{at} {record.levelname.lower()} {record.name}: {said}"]
        lines.extend(f"  {escaped(line)}" for line in (self.trace(record) or "").splitlines())
        return "\n".join(lines)


class Json(Lines):
    """One JSON object a line: ``at, level, logger, message``, then fields."""

    def line(self, record: logging.LogRecord, clean: Clean) -> str:
        """Return the line of *record*."""
        line = {
            "at": rfc3339(round(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.told(record, clean),
            **self.facts(record, clean),
        }
        if trace := self.trace(record):
            line["traceback"] = trace
        return encode(line).decode()


def configure(log_format: Literal["text", "json"], level: str, node: str) -> None:
    """Send all logs of this process to stderr, as those of *node*."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Text() if log_format == "text" else Json())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(_OURS).setLevel(level.upper())
    logging.captureWarnings(capture=True)
    sys.unraisablehook = _on_unraisable
    # What no line holds is not looked up (https://docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None  # noqa: SLF001
    logging.raiseExceptions = False  # a full disk must not end in more lines
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    sign(node)


def json_line(logger: str, level: int, message: str, node: str, **fields: object) -> str:
    """Return a line that is written whatever the level, such as the ready line."""
    record = logging.getLogger(logger).makeRecord(
        logger, level, "", 0, message, (), None, extra=fields
    )
    line = Json()
    line.node = node
    return line.format(record)


def sign(node: str) -> None:
    """Let every line from now on name *node*, because workers share one stderr."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, Lines):
            handler.formatter.node = node


def _on_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    error = unraisable.exc_value
    log.error("an exception is ignored", exc_info=error)


def without_secrets(text: str) -> str:
    """Return *text* without queries and passwords of addresses, bearer and session tokens."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def escaped(value: object) -> str:
    """Return *value* as text on one line without control characters; ``None`` is empty."""
    if value is None:
        return ""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.isprintable() else encode(escaped(text)).decode()
