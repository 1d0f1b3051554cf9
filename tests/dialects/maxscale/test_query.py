"""MaxScale's common parameters: form, fields, filters, pages and their links."""

from typing import Any

import pytest

from gateway.auth.credentials import PARAMETERS_MAX
from gateway.core.errors import BadRequest
from gateway.dialects.maxscale.filters import FILTERS_MAX
from gateway.dialects.maxscale.query import (
    FIELDS_MAX,
    PAGE_MAX,
    CommonParameters,
    NumberedPage,
    pruned,
    service_asked_for,
)
from tests.dialects.maxscale.build import as_json

SESSIONS = "http://gw.example/v1/sessions/"
RESOURCE: Any = {
    "id": "41",
    "type": "sessions",
    "attributes": {
        "user": "app_rw",
        "memory": {"total": 5, "client": {"readq": 1}},
        "connections": [{"server": "db-a"}],
        "cipher": None,
    },
    "relationships": {"services": {"data": []}},
    "links": {"self": SESSIONS},
}


@pytest.mark.parametrize(
    "query, default, pretty",
    [
        ("", True, True),
        ("", False, False),
        ("pretty", False, True),
        ("pretty=", False, True),
        ("pretty=true", False, True),
        ("PRETTY=1", False, True),
        ("pretty=whatever", False, True),
        ("pretty=false", True, False),
        ("pretty=OFF", True, False),
        ("pretty=no&pretty=yes", True, False),
        ("pretty=0", True, False),
    ],
)
def test_pretty_may_be_bare_or_have_a_value(query: str, default: bool, pretty: bool) -> None:
    """Replies are indented unless the parameter says no; the first one counts."""
    assert CommonParameters.parse(query.encode()).is_pretty(default=default) is pretty


@pytest.mark.parametrize(
    "value, seconds",
    [
        ("5", 5),
        ("0", 0),
        ("007", 7),
        ("9" * 30, 10**18 - 1),
        ("", None),
        ("-1", None),
        ("abc", None),
        ("5s", None),
        ("1.5", None),
        ("%D9%A3", None),
    ],
)
def test_seconds_are_digits_or_nothing(value: str, seconds: int | None) -> None:
    """Only digits are a number of seconds."""
    assert CommonParameters.parse(f"ttl={value}".encode()).seconds("ttl") == seconds


@pytest.mark.parametrize(
    "query",
    [
        b"a=%ff",
        "a=ü".encode(),
        b"&".join(b"a=1" for _ in range(PARAMETERS_MAX + 1)),
    ],
)
def test_unreadable_query_is_refused(query: bytes) -> None:
    """A query that is not UTF-8, not ASCII on the wire, or has no end is refused."""
    with pytest.raises(BadRequest):
        CommonParameters.parse(query)


def test_names_ignore_case_but_not_what_is_in_brackets() -> None:
    """The name of a parameter may have any case; a path in it keeps its own."""
    query = CommonParameters.parse(
        b'FILTER[attributes.User]="x"&filter[attributes.User]="y"&Page[size]=3'
    )

    assert len(query.filters()) == 1
    assert query.filters()[0].matches({"attributes": {"User": "x"}})
    assert query.page() == NumberedPage(3, 0)


def test_filters_of_both_spellings_are_all_to_be_met() -> None:
    """A pointer and paths together narrow each other down."""
    query = CommonParameters.parse(b'filter=id="1"&filter[a]=2&filter[b]=3')

    assert len(query.filters()) == 3


def test_too_many_filters_are_refused() -> None:
    """A request has a bounded number of filters."""
    query = CommonParameters.parse(
        "&".join(f"filter[a{n}]=1" for n in range(FILTERS_MAX + 1)).encode()
    )

    with pytest.raises(BadRequest):
        query.filters()


@pytest.mark.parametrize(
    "query, page",
    [
        (b"", None),
        (b"page[number]=2", None),
        (b"page[size]=0", None),
        (b"page[size]=-1", None),
        (b"page[size]=abc", None),
        (b"page[size]=", None),
        (b"page[size]=2", NumberedPage(2, 0)),
        (b"page%5Bsize%5D=2&page%5Bnumber%5D=3", NumberedPage(2, 3)),
        (b"page[size]=2&page[number]=x", NumberedPage(2, 0)),
        (b"page[size]=" + b"9" * 40, NumberedPage(PAGE_MAX, 0)),
    ],
)
def test_page_needs_a_positive_size(query: bytes, page: NumberedPage | None) -> None:
    """Paging is on with a positive size only; brackets may be encoded or not."""
    assert CommonParameters.parse(query).page() == page


@pytest.mark.parametrize(
    "query, total, links",
    [
        (b"page[size]=2", 5, {"self": 0, "first": 0, "next": 1, "last": 2}),
        (
            b"page[size]=2&page[number]=1",
            5,
            {"self": 1, "first": 0, "prev": 0, "next": 2, "last": 2},
        ),
        (b"page[size]=2&page[number]=2", 5, {"self": 2, "first": 0, "prev": 1, "last": 2}),
        (b"page[size]=2&page[number]=2", 4, {"self": 2, "first": 0, "last": 1}),
        (b"page[size]=2&page[number]=9", 5, {"self": 9, "first": 0, "last": 2}),
        (b"page[size]=2", 0, {"self": 0, "first": 0, "last": 0}),
    ],
)
def test_page_links_lead_to_what_exists(query: bytes, total: int, links: dict[str, int]) -> None:
    """First, last and self are always there; next and previous where there is one."""
    parsed = CommonParameters.parse(query)
    start = f"{SESSIONS}?page%5Bsize%5D=2&page%5Bnumber%5D="

    assert as_json(parsed.links(SESSIONS, parsed.page(), total)) == {
        name: f"{start}{number}" for name, number in links.items()
    }


def test_links_repeat_the_other_parameters() -> None:
    """A page link asks for the same filter and fields as the request that it came with."""
    query = CommonParameters.parse(b'filter=/id="4 1"&page[size]=1&fields[sessions]=user')
    start = f"{SESSIONS}?filter=%2Fid%3D%224%201%22&fields%5Bsessions%5D=user"

    assert query.links(SESSIONS, None, 9).self_ == start
    assert query.links(SESSIONS, query.page(), 9).next == (
        f"{start}&page%5Bsize%5D=1&page%5Bnumber%5D=1"
    )
    assert CommonParameters.parse(b"").links(SESSIONS, None, 9).self_ == SESSIONS


@pytest.mark.parametrize(
    "fields, attributes, relationships",
    [
        ("user", {"user": "app_rw"}, None),
        ("user,memory/total", {"user": "app_rw", "memory": {"total": 5}}, None),
        ("memory/total,memory", {"memory": {"total": 5, "client": {"readq": 1}}}, None),
        ("memory,memory/client/readq", {"memory": {"total": 5, "client": {"readq": 1}}}, None),
        ("/memory/client/", {"memory": {"client": {"readq": 1}}}, None),
        ("connections/server", {"connections": [{"server": "db-a"}]}, None),
        ("services", None, {"services": {"data": []}}),
        ("services/data/0,cipher", {"cipher": None}, {"services": {"data": []}}),
        ("nothing,user/deeper,memory/nothing,cipher/x", None, None),
        ("", None, None),
        (",/,", None, None),
    ],
)
def test_fields_keep_what_they_name(
    fields: str,
    attributes: dict[str, Any] | None,
    relationships: dict[str, Any] | None,
) -> None:
    """Only named members are left, and id, type and links always; what is empty goes."""
    kept = CommonParameters.parse(f"fields[sessions]={fields}".encode()).fields("sessions")
    wanted = {"id": "41", "type": "sessions", "links": {"self": SESSIONS}}

    assert kept is not None
    assert pruned(RESOURCE, kept) == {
        **wanted,
        **({"attributes": attributes} if attributes else {}),
        **({"relationships": relationships} if relationships else {}),
    }


def test_fields_of_another_type_change_nothing() -> None:
    """Fields are asked for by type."""
    assert CommonParameters.parse(b"fields[servers]=user").fields("sessions") is None
    assert CommonParameters.parse(b"fields=user&fields[sessions").fields("sessions") is None


def test_resource_without_a_part_keeps_the_other() -> None:
    """A resource that has no relationships is cut as well."""
    resource = {name: RESOURCE[name] for name in ("id", "type", "attributes")}

    assert pruned(resource, {"user": {}})["attributes"] == {"user": "app_rw"}


@pytest.mark.parametrize("text", ["a," * FIELDS_MAX + "a", "/".join("a" * 40)])
def test_too_many_fields_are_refused(text: str) -> None:
    """Fields have a bounded number and depth."""
    with pytest.raises(BadRequest):
        CommonParameters.parse(f"fields[sessions]={text}".encode()).fields("sessions")


@pytest.mark.parametrize(
    "query, service",
    [
        (b'filter=/relationships/services/data/0/id="orders"', "orders"),
        (b'filter=relationships/services/data/0/id=eq("orders")', "orders"),
        (b'filter[relationships.services.data[0].id]="orders"&filter=id="4"', "orders"),
        (b'filter=/relationships/services/data/0/id=ne("orders")', None),
        (b'filter=/relationships/services/data/0/id="default"', None),
        (b"filter=/relationships/services/data/0/id=5", None),
        (b'filter=/attributes/user="orders"', None),
        (b"", None),
    ],
)
def test_filter_by_service_is_known(query: bytes, service: str | None) -> None:
    """What the vendor's GUI asks for is found by the index of services."""
    assert service_asked_for(CommonParameters.parse(query).filters()) == service
