"""Logs: both formats, and the rules that every call in the code keeps to."""

import ast
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
from gateway.core.token_bucket import TokenBucket
from gateway.logs.formats import FIELD_MAX, TRACEBACK_MAX, Json, Text
from gateway.logs.request import RequestMark, current, mark_of
from gateway.logs.throttle import LINES_AT_ONCE, Throttle
from tests.canaries import SECRETS, documented, wrong_lines

ROOT = Path(gateway.__file__).parent
READY = "the gateway is ready"
METHODS = ("debug", "info", "warning", "error", "exception", "critical")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def record(message: str, **fields: object) -> logging.LogRecord:
    """Return what a logger hands to a format."""
    made = logging.makeLogRecord({"name": "gateway.x", "levelname": "INFO", "levelno": 20})
    made.msg, made.created = message, 0.0
    vars(made).update(fields)
    return made


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Yield place, level and call of every line of the gateway's log.

    The client is left out: it is a library in the programs of others.
    """
    for path in sorted(ROOT.rglob("*.py")):
        if path.is_relative_to(ROOT / "client"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.func.attr in (*METHODS, "log")
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.func.attr, node


def test_every_message_is_a_constant() -> None:
    """What varies is a field, so that a program finds a line by its message."""
    for place, level, call in calls():
        message = call.args[level == "log"]
        assert len(call.args) == 1 + (level == "log"), place
        assert isinstance(message, ast.Constant), place
        assert isinstance(message.value, str), place
        assert "%" not in message.value, place


def test_every_line_is_documented() -> None:
    """The table of lines names every message with its level, and no other."""
    page = (ROOT / "docs" / "logs.md").read_text()
    rows = re.findall(r"^\| `(.+?)` \| (\w+) \| (.*?) \|", page, re.MULTILINE)
    written = {(call.args[level == "log"].value, level) for _, level, call in calls()}  # type: ignore[attr-defined]
    documented = {message: level for message, level, _ in rows}

    assert len(documented) == len(rows)
    assert {message for message, _ in written} | {READY} == documented.keys()
    for message, level in written - {(message, "log") for message, _ in written}:
        assert documented[message] == ("error" if level == "exception" else level), message


def test_documented_rights_are_what_the_code_uses() -> None:
    """The documented ACL line permits each command of the code and of its scripts."""
    page = (ROOT / "docs" / "logs.md").read_text()
    [line] = re.findall(r"^ACL SETUSER .+$", page, re.MULTILINE)
    granted = {right.lstrip("+").partition("|")[0].upper() for right in re.findall(r"\+\S+", line)}
    scripts = "".join(path.read_text() for path in ROOT.glob("store/*.lua"))
    code = "".join(path.read_text() for path in ROOT.glob("store/*.py"))
    used = {"CLIENT", "SELECT"} | set(re.findall(r"call\('([A-Z]+)'", scripts))
    used |= set(re.findall(r'\(\s*"([A-Z]+)"[,)]', code)) - {"NOREPLICAS"}

    assert granted == used


def test_json_is_one_object_a_line() -> None:
    """A program reads time, level, logger, message, node and fields, in this order."""
    line = Json()
    line.node = "a"

    told = line.format(record("it went", session_id="s1", ms=2.5, ok=True, unset=None))

    assert told == (
        '{"at":"1970-01-01T00:00:00.000Z","level":"info","logger":"gateway.x","message":"it went",'
        '"node":"a","session_id":"s1","ms":2.5,"ok":true}'
    )


def test_text_tells_the_same_facts() -> None:
    """People read the same fields behind the message; what holds a space is quoted."""
    line = Text()
    line.node = "a"

    told = line.format(record("it went", reason='said "no"', ms=2.5, ok=True, unset=None))

    assert told == (
        "1970-01-01T00:00:00.000Z info gateway.x: it went"
        ' node=a reason="said \\"no\\"" ms=2.5 ok=true'
    )


@pytest.mark.parametrize("line", [Text(), Json()])
def test_client_can_neither_begin_a_line_nor_steer_a_terminal(line: logging.Formatter) -> None:
    """Control characters of a client are escaped, in messages and in fields."""
    told = line.format(record("hello \x1b[2J", account="s\n1\x1b[2J"))

    assert told.isprintable()


@pytest.mark.parametrize("line", [Text(), Json()])
def test_objects_of_python_are_left_out(line: logging.Formatter) -> None:
    """The first line of what a library says is its message; asyncio adds objects below."""
    told = line.format(record("Task exception was never retrieved\nfuture: <Task finished>"))

    assert "never retrieved" in told
    assert "<Task" not in told


@pytest.mark.parametrize("line", [Text(), Json()])
def test_line_holds_no_query_and_no_token(line: logging.Formatter) -> None:
    """Queries of addresses, passwords in them and tokens are taken out of every line."""
    text = (
        "GET /v1/events?token=hush&x=1 HTTP, Bearer hush.def, offered bearer.hush session.s1.hush"
        " redis://user:hush@host/0"
    )

    for told in (line.format(record(text)), line.format(record("x", extra=text))):
        assert "hush" not in told
        assert "/v1/events?…" in told
        assert "redis://user:…@host/0" in told


def test_traceback_is_a_bounded_field() -> None:
    """A traceback is one field of the line in JSON, and indented lines in text."""
    try:
        raise ValueError("wrong\nvalue" + "x" * TRACEBACK_MAX)
    except ValueError:
        made = record("it failed", exc_info=sys.exc_info())

    line = Json().format(made)

    assert "\n" not in line
    assert len(json.loads(line)["traceback"]) == TRACEBACK_MAX
    _, *rest = Text().format(made).splitlines()
    assert rest
    assert all(line.startswith("  ") for line in rest)


def test_field_is_bounded() -> None:
    """A client's text takes up no more than its share of a line."""
    assert len(json.loads(Json().format(record("x", text="y" * 9999)))["text"]) == FIELD_MAX


def test_line_names_the_request_that_is_handled() -> None:
    """The id and the trace of a request are in every line that it causes."""
    before = current.set(RequestMark("r1", TRACE))
    try:
        told = json.loads(Json().format(record("x")))
    finally:
        current.reset(before)

    assert (told["request_id"], told["trace_id"]) == ("r1", TRACE)
    assert "request_id" not in json.loads(Json().format(record("x")))


@pytest.mark.parametrize("kept", ["r1", "4bf9-2f35", "a" * 128, "A=+/.:_~@"])
def test_well_formed_request_id_is_kept(kept: str) -> None:
    """A proxy's id is this request's, so that both logs tell of it."""
    assert mark_of([(b"x-request-id", kept.encode())]).request_id == kept


@pytest.mark.parametrize("lines", [[], [b""], [b"a" * 129], [b'a"b'], [b"a b"], [b"a", b"b"]])
def test_other_request_id_is_replaced(lines: list[bytes]) -> None:
    """Without an id, or with one that could harm a log, the request gets its own."""
    ids = {mark_of([(b"x-request-id", line) for line in lines]).request_id for _ in range(2)}

    assert len(ids) == 2
    assert all(len(known) == 16 for known in ids)


@pytest.mark.parametrize(
    "text, trace_id",
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-brings", TRACE),
        (f"00-{TRACE}-00f067aa0ba902b7-01-more", None),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-0000000000000000-01", None),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-00f067aa0ba902b7", None),
        ("", None),
    ],
)
def test_trace_of_a_valid_traceparent_is_kept(text: str, trace_id: str | None) -> None:
    """A ``traceparent`` counts if W3C Trace Context calls it valid."""
    assert mark_of([(b"traceparent", text.encode())]).trace_id == trace_id


def test_two_traceparents_are_none() -> None:
    """Of two headers neither counts, because nobody knows which one is meant."""
    header = (b"traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())

    assert mark_of([header, header]).trace_id is None


@pytest.mark.parametrize(
    "secret", [*SECRETS, "eyJa.eyJb.c", "/v1/events?token=x", f"s1.{'a' * 43}"]
)
def test_secret_in_a_line_is_found(secret: str) -> None:
    """After the last test every line of a gateway is searched for what the tests sent."""
    assert list(wrong_lines(f"{secret} came", documented()))
    assert list(wrong_lines(json.dumps({"logger": "gateway.x", "message": secret}), documented()))


def test_line_with_an_undocumented_field_is_found() -> None:
    """The fields of the table are those of the lines that are written."""
    table = {"it went": frozenset({"ms"})}
    good = {"logger": "gateway.x", "message": "it went", "ms": 1, "request_id": "r1"}

    assert list(wrong_lines(json.dumps(good), table)) == []
    assert list(wrong_lines(json.dumps({**good, "mss": 1}), table))


def test_flood_of_lines_is_bounded_and_told() -> None:
    """What clients cause is bounded; the next line tells how many were left out."""
    throttle = Throttle()
    admitted = [throttle.admit() for _ in range(LINES_AT_ONCE + 5)]

    assert admitted[:LINES_AT_ONCE] == [{}] * LINES_AT_ONCE
    assert admitted[LINES_AT_ONCE:] == [None] * 5
    throttle._bucket = TokenBucket(1, 1, 0)  # noqa: SLF001 - time has passed
    assert throttle.admit() == {"suppressed": 5}
