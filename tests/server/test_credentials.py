"""Credentials: where tokens may stand, whose page asks, and who is behind a proxy."""

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.auth.credentials import (
    COOKIE,
    HOPS_MAX,
    PARAMETERS_MAX,
    SUBPROTOCOLS_MAX,
    Credential,
    Peer,
    check_cookie_login,
    check_origin,
    check_same_site,
    client_address,
    cors_origin,
    networks,
    origins,
    read_credential,
)
from gateway.core.errors import BadRequest, Forbidden, UnsupportedMediaType

TRUSTED = networks(("10.0.0.0/8", "fd00::/8", "127.0.0.1"))
ALLOWED = origins(("https://app.example.com", "http://localhost:3000"))
COOKIES = Credential(token="t", source="cookie")
BEARER = Credential(token="t", source="header")


def scope(
    *headers: tuple[str, str],
    kind: str = "http",
    query: str = "",
    offered: Sequence[str] = (),
    client: tuple[str, int] | None = ("192.0.2.1", 5000),
    scheme: str | None = None,
    method: str = "GET",
) -> dict[str, Any]:
    """A request as the server hands it over."""
    return {
        "type": kind,
        "scheme": scheme or {"http": "http", "websocket": "ws"}[kind],
        "method": method,
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "query_string": query.encode("latin-1"),
        "subprotocols": list(offered),
        "client": client,
    }


def socket(*headers: tuple[str, str], **rest: Any) -> dict[str, Any]:  # noqa: ANN401 - of scope
    """A handshake."""
    return scope(*headers, kind="websocket", **rest)


def test_nothing_shown_is_nothing() -> None:
    """A request without a token has none."""
    assert read_credential(scope()) == Credential()
    assert read_credential(socket()) == Credential()


@pytest.mark.parametrize(
    "header,token",
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Bearer", ""), ("Basic abc", ""), ("", "")],
)
def test_bearer_header_holds_the_token(header: str, token: str) -> None:
    """The scheme's case does not matter; another scheme is a token that opens nothing."""
    shown = read_credential(scope(("Authorization", header), ("Cookie", f"{COOKIE}=c")))

    assert (shown.token, shown.source) == (token, "header")


def test_browsers_socket_shows_its_token_as_a_subprotocol() -> None:
    """Only our own subprotocol is answered, never one that holds a token."""
    shown = read_credential(socket(offered=["bearer.a.b.c", "gateway.v1", "session.s%3A1.x"]))

    assert shown == Credential(
        token="a.b.c", source="subprotocol", session_token="s:1.x", subprotocol="gateway.v1"
    )
    assert read_credential(socket(offered=["bearer.a"])).subprotocol is None
    assert read_credential(scope(offered=["bearer.a"])).token is None


def test_query_holds_a_token_where_headers_cannot_be_set() -> None:
    """Sockets and SSE take ``?token=``; other requests are told not to."""
    assert read_credential(socket(query="a=1&token=a%2Eb")).token == "a.b"
    assert read_credential(scope(query="token=x"), in_query=True).source == "query"
    for query in ("token=x", "token=", "token", "a=1&token=x"):
        with pytest.raises(BadRequest, match="must not stand in the address"):
            read_credential(scope(query=query))


@pytest.mark.parametrize(
    "request_scope",
    [
        scope(("Authorization", "Bearer a"), ("Authorization", "Bearer b")),
        socket(("Authorization", "Bearer a"), query="token=a"),
        socket(offered=["bearer.a", "bearer.a"]),
        socket(offered=["session.a", "session.b"]),
        socket(query="token=a&token=a"),
        socket(offered=["bearer.a"], query="token=a"),
        socket(offered=["x"] * (SUBPROTOCOLS_MAX + 1)),
        socket(query="a&" * PARAMETERS_MAX + "a"),
        socket(query="\xff"),
    ],
)
def test_more_than_one_token_is_refused(request_scope: dict[str, Any]) -> None:
    """Two tokens, or more than we care to look at, are an error and not a choice of ours."""
    with pytest.raises(BadRequest):
        read_credential(request_scope)


def test_cookie_counts_when_nothing_else_is_shown() -> None:
    """A browser adds the cookie by itself, so a token that was chosen wins."""
    cookie = ("Cookie", f"a=b; {COOKIE}=abc.d-e; x=y")

    assert read_credential(scope(cookie)) == Credential(token="abc.d-e", source="cookie")
    assert read_credential(socket(cookie, query="token=x")).source == "query"
    for value in ("", '"quoted"', "a b", "a\x01"):
        assert read_credential(scope(("Cookie", f"{COOKIE}={value}"))).source == "none"


@pytest.mark.parametrize(
    "headers,scheme",
    [
        ([("Origin", "http://gw.example"), ("Host", "gw.example")], "ws"),
        ([("Origin", "http://GW.example:80"), ("Host", "gw.example")], "ws"),
        ([("Origin", "http://gw.example:8080"), ("Host", "gw.example:8080")], "ws"),
        ([("Origin", "https://gw.example"), ("Host", "gw.example:443")], "wss"),
        ([("Origin", "http://[::1]:8080"), ("Host", "[::1]:8080")], "ws"),
        ([("Origin", "https://app.example.com"), ("Host", "gw.example")], "ws"),
        ([("Origin", "https://APP.example.com:443"), ("Host", "gw.example")], "ws"),
        ([("Origin", "http://localhost:3000")], "ws"),
    ],
)
def test_pages_of_ours_and_listed_ones_may_connect(
    headers: list[tuple[str, str]], scheme: str
) -> None:
    """A page of our own host, or of a listed origin, may open a socket with a cookie."""
    check_origin(socket(*headers, scheme=scheme), COOKIES, ALLOWED, ())


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "https://gw.example",
        "http://gw.example:8080",
        "http://gw.example.evil.example",
        "https://app.example.com.evil.example",
        "https://app.example.com:444",
        "http://app.example.com",
        "https://xapp.example.com",
        "https://app.example.com/",
        "https://app.example.com@evil.example",
        "file://",
        "https://app.example.com, https://evil.example",
    ],
)
@pytest.mark.parametrize("shown", [COOKIES, BEARER, Credential()])
def test_pages_of_others_may_not(origin: str, shown: Credential) -> None:
    """Whatever the credential, a page of a foreign origin opens no socket."""
    with pytest.raises(Forbidden):
        check_origin(socket(("Origin", origin), ("Host", "gw.example")), shown, ALLOWED, TRUSTED)


@pytest.mark.parametrize("host", [(), (("Host", "a b"),), (("Host", ""),), (("Host", "a/b?"),)])
def test_bad_host_is_nobodys_origin(host: tuple[tuple[str, str], ...]) -> None:
    """A host that cannot be read equals no origin, not every unreadable one."""
    for origin in ("null", "http://", "http://a b", "http://a"):
        with pytest.raises(Forbidden):
            check_origin(socket(("Origin", origin), *host), BEARER, ALLOWED, ())
        with pytest.raises(Forbidden):
            check_same_site(scope(("Origin", origin), *host, method="PUT"), COOKIES, ())


def test_programs_name_no_origin() -> None:
    """Without an Origin a token is enough; a cookie is not."""
    check_origin(socket(), BEARER, ALLOWED, ())
    check_origin(socket(), Credential(), ALLOWED, ())
    with pytest.raises(Forbidden):
        check_origin(socket(), COOKIES, ALLOWED, ())


def test_two_origins_or_hosts_are_refused() -> None:
    """A request that says two things about itself is malformed."""
    with pytest.raises(BadRequest):
        check_origin(socket(("Origin", "http://a"), ("Origin", "http://b")), BEARER, ALLOWED, ())
    with pytest.raises(BadRequest):
        check_origin(
            socket(("Origin", "http://a"), ("Host", "a"), ("Host", "b")), BEARER, ALLOWED, ()
        )


def test_behind_a_trusted_proxy_its_host_and_scheme_are_ours() -> None:
    """Where a trusted proxy ends TLS the page's origin is the proxy's, and else it is not."""
    headers = (
        ("Origin", "https://public.example"),
        ("Host", "internal:8080"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "public.example"),
    )

    check_origin(socket(*headers, client=("10.0.0.1", 1)), COOKIES, ALLOWED, TRUSTED)
    with pytest.raises(Forbidden):
        check_origin(socket(*headers, client=("192.0.2.1", 1)), COOKIES, ALLOWED, TRUSTED)
    with pytest.raises(Forbidden):
        check_origin(socket(*headers, client=None), COOKIES, ALLOWED, TRUSTED)


@pytest.mark.parametrize(
    "shown,method,headers,allowed",
    [
        (BEARER, "DELETE", [("Origin", "https://evil.example")], True),
        (COOKIES, "GET", [], True),
        (COOKIES, "HEAD", [("Sec-Fetch-Site", "cross-site")], True),
        (COOKIES, "DELETE", [], False),
        (COOKIES, "DELETE", [("Sec-Fetch-Site", "same-origin")], True),
        (COOKIES, "DELETE", [("Sec-Fetch-Site", "same-site")], False),
        (COOKIES, "POST", [("Sec-Fetch-Site", "none")], False),
        (COOKIES, "POST", [("Origin", "http://gw.example")], True),
        (COOKIES, "POST", [("Origin", "http://evil.example")], False),
        (COOKIES, "POST", [("Origin", "null")], False),
        (COOKIES, "POST", [("Origin", "https://app.example.com")], False),
        (
            COOKIES,
            "PATCH",
            [("Origin", "http://gw.example"), ("Sec-Fetch-Site", "cross-site")],
            False,
        ),
    ],
)
def test_cookie_writes_only_for_our_own_page(
    shown: Credential, method: str, headers: list[tuple[str, str]], allowed: bool
) -> None:
    """A write that a cookie authenticates must be asked for by a page of ours."""
    request = scope(*headers, ("Host", "gw.example"), method=method)
    if allowed:
        check_same_site(request, shown, ())
    else:
        with pytest.raises(Forbidden):
            check_same_site(request, shown, ())


JSON = ("Content-Type", "application/json; charset=utf-8")


@pytest.mark.parametrize(
    "headers,error",
    [
        ([JSON], None),
        ([JSON, ("Sec-Fetch-Site", "same-origin")], None),
        ([JSON, ("Origin", "http://gw.example")], None),
        ([JSON, ("Origin", "https://app.example.com"), ("Sec-Fetch-Site", "cross-site")], None),
        ([JSON, ("Sec-Fetch-Site", "cross-site")], Forbidden),
        ([JSON, ("Sec-Fetch-Site", "same-site")], Forbidden),
        ([JSON, ("Sec-Fetch-Site", "none")], Forbidden),
        ([JSON, ("Origin", "https://evil.example")], Forbidden),
        ([JSON, ("Origin", "null")], Forbidden),
        ([JSON, ("Origin", "http://gw.example"), ("Sec-Fetch-Site", "cross-site")], Forbidden),
        ([], UnsupportedMediaType),
        ([("Content-Type", "text/plain")], UnsupportedMediaType),
        ([("Content-Type", "application/x-www-form-urlencoded")], UnsupportedMediaType),
        ([("Content-Type", "text/plain; application/json")], UnsupportedMediaType),
        ([JSON, JSON], BadRequest),
    ],
)
def test_cookie_is_set_for_our_own_page_and_for_programs(
    headers: list[tuple[str, str]], error: type[Exception] | None
) -> None:
    """Nobody is logged in by a page of somebody else, which has forms but sends no JSON."""
    request = scope(*headers, ("Host", "gw.example"), method="POST")
    if error is None:
        check_cookie_login(request, ALLOWED, ())
    else:
        with pytest.raises(error):
            check_cookie_login(request, ALLOWED, ())


@pytest.mark.parametrize(
    "origin,said",
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://APP.example.com", "https://APP.example.com"),
        ("https://app.example.com.evil.example", None),
        ("null", None),
        ("*", None),
    ],
)
def test_only_listed_origins_may_read(origin: str, said: str | None) -> None:
    """CORS names the listed origin that asked, and nothing for others."""
    assert cors_origin(scope(("Origin", origin)), ALLOWED) == said
    assert cors_origin(scope(), ALLOWED) is None


@pytest.mark.parametrize(
    "client,headers,peer",
    [
        (("192.0.2.1", 5), [], Peer("192.0.2.1", 5, tls=False)),
        (None, [("X-Forwarded-For", "1.1.1.1")], Peer(None, None, tls=False)),
        (("::ffff:192.0.2.1", 5), [], Peer("192.0.2.1", 5, tls=False)),
        (
            ("192.0.2.1", 5),
            [("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-Proto", "https")],
            Peer("192.0.2.1", 5, tls=False),
        ),
        (
            ("10.0.0.1", 5),
            [("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-Proto", "https")],
            Peer("1.1.1.1", None, tls=True),
        ),
        (
            ("::ffff:10.0.0.1", 5),
            [("X-Forwarded-For", "6.6.6.6, 1.1.1.1, 10.2.3.4")],
            Peer("1.1.1.1", None, tls=False),
        ),
        (
            ("10.0.0.1", 5),
            [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "1.1.1.1:99")],
            Peer("1.1.1.1", 99, tls=False),
        ),
        (
            ("10.0.0.1", 5),
            [("X-Forwarded-For", "[2001:DB8::1]:9")],
            Peer("2001:db8::1", 9, tls=False),
        ),
        (
            ("10.0.0.1", 5),
            [("X-Forwarded-For", "2001:db8::1")],
            Peer("2001:db8::1", None, tls=False),
        ),
        (
            ("10.0.0.1", 5),
            [("X-Forwarded-For", "10.0.0.3,10.0.0.2")],
            Peer("10.0.0.3", None, tls=False),
        ),
        (
            ("10.0.0.1", 5),
            [("X-Forwarded-For", "1.1.1.1, unknown")],
            Peer("10.0.0.1", 5, tls=False),
        ),
        (("10.0.0.1", 5), [("X-Forwarded-For", "")], Peer("10.0.0.1", 5, tls=False)),
        (("10.0.0.1", 5), [], Peer("10.0.0.1", 5, tls=False)),
        (("fd00::1", 5), [("X-Forwarded-For", "1.1.1.1")], Peer("1.1.1.1", None, tls=False)),
        (
            ("10.0.0.1", 5),
            [("X-Forwarded-For", "1.1.1.1" + ",10.0.0.2" * HOPS_MAX)],
            Peer("10.0.0.2", None, tls=False),
        ),
    ],
)  # fmt: skip
def test_client_is_the_last_address_that_a_trusted_proxy_vouches_for(
    client: tuple[str, int] | None, headers: list[tuple[str, str]], peer: Peer
) -> None:
    """What an unknown sender writes into ``X-Forwarded-For`` is never believed."""
    assert client_address(scope(*headers, client=client), TRUSTED) == peer


def test_tls_of_our_own_is_known() -> None:
    """Without a proxy the scheme of the connection counts."""
    assert client_address(socket(scheme="wss"), ()).tls
    assert client_address(scope(scheme="https"), TRUSTED).tls
