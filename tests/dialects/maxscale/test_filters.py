"""MaxScale's filter language: what it finds, what it compares, what it refuses."""

from typing import Any

import pytest

from gateway.core.errors import BadRequest
from gateway.dialects.maxscale.filters import DEPTH_MAX, STEPS_MAX, by_path, by_pointer

SESSION: Any = {
    "id": "41",
    "attributes": {
        "user": "app_rw",
        "idle": 12.5,
        "port": 51514,
        "cipher": None,
        "log_info": True,
        "connections": [{"server": "db-a", "n": 1}, {"server": "db-b", "n": 2}],
        "backends": {"db-a": {"total": 3}, "db/b": {"total": 4}},
        "empty": {},
    },
}


@pytest.mark.parametrize(
    "text",
    [
        'id="41"',
        '/id="41"',
        'id=eq("41")',
        '/attributes/user="app_rw"',
        '/attributes/connections/0/server="db-a"',
        "/attributes/backends/db~1b/total=4",
        "attributes/idle=gt(12)",
        "attributes/idle=ge(12.5)",
        "attributes/idle=le(12.5)",
        "attributes/port=51514.0",
        "attributes/port=lt(1e6)",
        "attributes/port=ne(-1)",
        "attributes/cipher=null",
        "attributes/log_info=true",
        "attributes/log_info=eq(true)",
        "attributes/log_info=le(true)",
        'attributes/user=ge("app")',
        "attributes/empty={}",
        'attributes/connections=[{"server":"db-a","n":1},{"server":"db-b","n":2}]',
        'id=or(eq("7"),eq("41"))',
        'id=and(ne("7"),ne("8"),eq("41"))',
        'id=not(eq("7"),eq("8"))',
        'id=or(and(eq("41"),not(eq("7"))),"9")',
        'attributes/user=ne("a=b")',
    ],
)
def test_pointer_filter_finds_what_it_says(text: str) -> None:
    """A filter with a pointer matches a resource that has the value."""
    found = by_pointer(text)

    assert found is not None
    assert found.matches(SESSION)


@pytest.mark.parametrize(
    "text",
    [
        'id="42"',
        "id=41",
        'nothing="41"',
        'nothing=ne("41")',
        'nothing=not(eq("41"))',
        "attributes/user/deeper=null",
        "attributes/connections/2/server=ne(null)",
        "attributes/connections/00/n=1",
        "attributes/connections/0000000000/n=1",
        "attributes/connections/-/n=1",
        "attributes/connections/²/n=1",
        "attributes/idle=lt(12.5)",
        'attributes/idle=gt("1")',
        'attributes/idle=le("1")',
        'attributes/user=ge("b")',
        "attributes/log_info=1",
        "attributes/log_info=gt(false)",
        'attributes/log_info=ge("x")',
        'id=not(eq("41"),eq("8"))',
        'id=and(eq("41"),eq("8"))',
    ],
)
def test_pointer_filter_leaves_out_what_differs(text: str) -> None:
    """A value of another type, and a member that is not there, never match."""
    found = by_pointer(text)

    assert found is not None
    assert not found.matches(SESSION)


@pytest.mark.parametrize(
    "path, expression, matches",
    [
        ("id", '"41"', True),
        ("$.id", '"41"', True),
        ("$", 'ne("41")', True),
        ("", 'ne("41")', True),
        ("$.attributes.user", '"app_rw"', True),
        ("$['attributes'][\"user\"]", '"app_rw"', True),
        ("attributes['user']", '"app_rw"', True),
        ("attributes.connections[*].server", 'eq("db-b")', True),
        ("attributes.connections.*.server", 'eq("db-b")', True),
        ("attributes.connections[0].server", 'eq("db-b")', False),
        ("attributes.connections[0,1].server", 'eq("db-b")', True),
        ("attributes.connections[1,7].n", "gt(1)", True),
        ("attributes.backends.db-a.total", "3", True),
        ("attributes.backends['db/b'].total", "4", True),
        ("attributes.backends.*.total", "gt(3)", True),
        ("attributes.backends[*].total", "gt(4)", False),
        ("attributes['']", "null", False),
        ("*.user", '"app_rw"', True),
    ],
)
def test_path_filter_matches_any_of_what_it_finds(
    path: str, expression: str, matches: bool
) -> None:
    """Of several values under one path one that fits is enough."""
    assert by_path(path, expression).matches(SESSION) is matches


def test_pointer_without_an_expression_is_no_filter() -> None:
    """A filter that asks for nothing is ignored, as MaxScale does."""
    assert by_pointer("/attributes/user") is None
    assert by_pointer("") is None


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "app",
        'magic("x")',
        'eq("x"',
        'eq("x"))',
        'eq( "x")',
        "eq()",
        "and()",
        'or("a",)',
        'eq("a","b")',
        '"x" ',
        "NaN",
        "eq(Infinity)",
        "-Infinity",
        "'x'",
        "gt",
        "not(",
        "[" * 4000,
        "9" * 5000,
        "not(" * (DEPTH_MAX + 1) + "1" + ")" * (DEPTH_MAX + 1),
        "\ud800",
    ],
)
def test_bad_expression_is_refused(expression: str) -> None:
    """What is no expression is refused, with MaxScale's words and little of the input."""
    with pytest.raises(BadRequest, match=r"^Not a valid filter expression: ") as refused:
        by_pointer(f"id={expression}")

    assert len(refused.value.detail) < 200


def test_expression_may_be_deep_within_bounds() -> None:
    """Expressions within each other are read down to the bound."""
    text = "not(" * DEPTH_MAX + '"41"' + ")" * DEPTH_MAX
    found = by_pointer(f"id={text}")

    assert found is not None
    assert found.matches(SESSION)


@pytest.mark.parametrize(
    "path",
    ["a..b", "a[", "a[x]", "a[-1]", "a['b]", "$a", "a b", "a['b']c", "[?(@.a)]", "a[1:2]"],
)
def test_bad_path_is_refused(path: str) -> None:
    """A path beyond the part of JSONPath that MaxScale reads is refused."""
    with pytest.raises(BadRequest, match=r"^Not a valid JSON path: "):
        by_path(path, "1")


def test_endless_path_is_refused() -> None:
    """A path has a bound, however it is spelled."""
    with pytest.raises(BadRequest):
        by_path("a" + ".a" * STEPS_MAX, "1")
    with pytest.raises(BadRequest):
        by_pointer("/a" * (STEPS_MAX + 1) + "=1")
