"""Credentials: the token of a request, the address of its client, and the checks of its origin.

This reads an ASGI scope and decides nothing about rights. A token is in exactly one place:
``Authorization: Bearer``, a WebSocket subprotocol ``bearer.<token>`` (browsers cannot set headers),
``?token=`` (sockets and SSE only), or a cookie. A browser adds the cookie to any request, so it
counts only if our own page sent the request. ``X-Forwarded-*`` counts only from trusted proxies.

Not here: whether the token is valid (``principals``).
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from gateway.core.errors import BadRequest, Forbidden, UnsupportedMediaType
from gateway.settings import parse_origin

Scope = Mapping[str, Any]  # of ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html
Networks = tuple[IPv4Network | IPv6Network, ...]
Origins = frozenset[tuple[str, str, int | None]]

SUBPROTOCOL: Final = "gateway.v1"
COOKIE: Final = "gateway_token"
SUBPROTOCOLS_MAX: Final = 16  # offers in one handshake; we know three
PARAMETERS_MAX: Final = 256  # in one query; the native API knows about forty labels and names
HOPS_MAX: Final = 32  # proxies in a row; more is not a real chain
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._~-]{0,63}){1,8}", re.ASCII)

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_TLS_SCHEMES: Final = frozenset({"https", "wss"})
_COOKIE_VALUE: Final = re.compile(r"[!#-+\--:<-\[\]-~]+")  # RFC 6265 section 4.1.1

Source = Literal["none", "header", "subprotocol", "query", "cookie"]


class OriginRefused(Forbidden):
    """The page that sends a request may not."""


class Credential(Struct, frozen=True, kw_only=True):
    """The credential of a request.

    Args:
        token: The token, unchecked; ``None`` if there was none.
        source: Where it was.
        session_token: The session token of a ``session.<token>`` subprotocol.
        subprotocol: What the handshake must answer; never holds a token.
    """

    token: str | None = None
    source: Source = "none"
    session_token: str | None = None
    subprotocol: str | None = None


class Peer(NamedTuple):
    """The address of the client behind trusted proxies; unknown parts are ``None``."""

    address: str | None
    port: int | None
    tls: bool


@lru_cache(maxsize=16)  # of a setting, so there are few
def networks(texts: tuple[str, ...]) -> Networks:
    """Return the networks of a setting."""
    return tuple(map(ip_network, texts))


@lru_cache(maxsize=16)
def origins(texts: tuple[str, ...]) -> Origins:
    """Return the origins of ``allowed_origins``."""
    return frozenset(found for text in texts if (found := parse_origin(text)))


def read_credential(scope: Scope, *, in_query: bool = False) -> Credential:
    """Return the credential of a request or handshake.

    Args:
        scope: The ASGI scope.
        in_query: Whether this path takes ``?token=`` by plain HTTP, as SSE does.

    Raises:
        BadRequest: There are tokens in two places (RFC 6750 section 2), or in a query that takes
        none.
    """
    is_socket = scope["type"] == "websocket"
    found: list[tuple[Source, str]] = []
    header = one_header(scope, b"authorization")
    if header is not None:
        kind, _, token = header.partition(" ")
        # Another scheme is a credential that we cannot read, so the cookie does not count either.
        found.append(("header", token.strip() if kind.lower() == "bearer" else ""))
    offered: list[str] = list(scope.get("subprotocols", ())) if is_socket else []
    if len(offered) > SUBPROTOCOLS_MAX:
        raise BadRequest("Too many subprotocols are offered.")
    found.extend(("subprotocol", token) for token in _offers(offered, "bearer."))
    queried = _queried(scope)
    if queried and not (is_socket or in_query):
        raise BadRequest("A token must not stand in the address; send it as Authorization: Bearer.")
    found.extend(("query", token) for token in queried)
    sessions = _offers(offered, "session.")
    if len(found) > 1 or len(sessions) > 1:
        raise BadRequest("More than one token is shown.")
    if not found and (cookie := cookie_value(scope, COOKIE)):
        found.append(("cookie", cookie))
    return Credential(
        token=found[0][1] if found else None,
        source=found[0][0] if found else "none",
        session_token=sessions[0] if sessions else None,
        subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None,
    )


def _offers(offered: Iterable[str], start: str) -> list[str]:
    """Return the tokens after the prefix *start*, percent-decoded."""
    return [unquote(text.removeprefix(start)) for text in offered if text.startswith(start)]


def _queried(scope: Scope) -> list[str]:
    query: bytes = scope.get("query_string", b"")
    if query.isascii() and len(query) < PARAMETERS_MAX and not (b"token" in query or b"%" in query):
        return []  # most queries have no token, and this is quick to see
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=PARAMETERS_MAX
        )
    except ValueError as error:
        raise BadRequest("The query of the address cannot be read.") from error
    return [value for name, value in pairs if name == "token"]


def cookie_value(scope: Scope, name: str) -> str | None:
    """Return the value of the first cookie of that name, if it has one that a cookie may have."""
    for header in headers(scope, b"cookie"):
        for pair in header.split(";"):
            known, _, value = pair.strip().partition("=")
            if known == name and _COOKIE_VALUE.fullmatch(value):
                return value
    return None


def headers(scope: Scope, name: bytes) -> list[str]:
    """Return the values of a header, in order; *name* in lower case."""
    return [value.decode("latin-1") for known, value in scope["headers"] if known == name]


def one_header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header that may come once.

    Raises:
        BadRequest: It came more than once.
    """
    found: bytes | None = None
    for known, value in scope["headers"]:
        if known == name:
            if found is not None:
                raise BadRequest(f"The header {name.decode()} comes more than once.")
            found = value
    return None if found is None else found.decode("latin-1")


def client_address(scope: Scope, trusted: Networks) -> Peer:
    """Return the address of the client of a request.

    Behind trusted proxies this is the right-most address of ``X-Forwarded-For`` that is not a
    trusted proxy, because anybody can write the addresses to its left.
    """
    peer: tuple[str, int] | None = scope.get("client")
    address, port = peer or (None, None)
    tls = scope.get("scheme") in _TLS_SCHEMES
    if not _is_of_proxy(scope, trusted):
        return Peer(_tidy(address), port, tls)
    tls = _first(scope, b"x-forwarded-proto", "https" if tls else "http").lower() in _TLS_SCHEMES
    hops = ",".join(headers(scope, b"x-forwarded-for")).split(",")[-HOPS_MAX:]
    for hop in reversed(hops):
        found, found_port = _split_port(hop.strip())
        if (known := _ip(found)) is None:
            break  # not an address: the last valid one is all that is known
        address, port = str(known), found_port
        if not _trusts(known, trusted):
            break
    return Peer(_tidy(address), port, tls)


def is_listed(scope: Scope, listed: Networks, trusted: Networks) -> bool:
    """Whether the client of a request has one of the *listed* addresses.

    What an unknown proxy forwards is from nobody who is listed: the proxy's own address may be.
    """
    if headers(scope, b"x-forwarded-for") and not _is_of_proxy(scope, trusted):
        return False
    return _trusts(_ip(client_address(scope, trusted).address or ""), listed)


@lru_cache(maxsize=4096)  # many connections come from few addresses
def _tidy(address: str | None) -> str | None:
    known = _ip(address)
    return address if known is None else str(known)


@lru_cache(maxsize=4096)
def _ip(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text or "")
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _is_of_proxy(scope: Scope, trusted: Networks) -> bool:
    """Whether a trusted proxy sent the request."""
    if not trusted:  # as with most gateways: no address is parsed
        return False
    peer: tuple[str, int] | None = scope.get("client")
    return peer is not None and _trusts(_ip(peer[0]), trusted)


def _trusts(address: IPv4Address | IPv6Address | None, trusted: Networks) -> bool:
    return address is not None and any(address in network for network in trusted)


def _split_port(text: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"\[([^\]]*)\](?::(\d{1,5}))?|([^:]*):(\d{1,5})", text, re.ASCII)
    if match is None:
        return text, None
    port = match[2] or match[4]
    return match[1] or match[3] or "", int(port) if port else None


def _first(scope: Scope, name: bytes, default: str) -> str:
    values = headers(scope, name)
    return values[0].partition(",")[0].strip() if values else default


def forwarded_prefix(scope: Scope, trusted: Networks) -> str:
    """Return the prefix that a trusted proxy took off the path (``X-Forwarded-Prefix``), or none.

    One that is no plain path is left out, because it becomes a part of links and of ``Location``.
    """
    if not _is_of_proxy(scope, trusted):
        return ""
    prefix = _first(scope, b"x-forwarded-prefix", "").rstrip("/")
    return prefix if _PREFIX.fullmatch(prefix) else ""


def own_origin(scope: Scope, trusted: Networks) -> str:
    """Return the origin of the gateway's own pages, as the client sees it."""
    host = one_header(scope, b"host") or ""
    if _is_of_proxy(scope, trusted):
        host = _first(scope, b"x-forwarded-host", host)
    scheme = "https" if client_address(scope, trusted).tls else "http"
    return f"{scheme}://{host}"


def _is_own(origin: tuple[str, str, int | None], scope: Scope, trusted: Networks) -> bool:
    return origin == parse_origin(own_origin(scope, trusted))


def check_origin(scope: Scope, credential: Credential, allowed: Origins, trusted: Networks) -> None:
    """Raise if a page of another origin opens this WebSocket; programs send no origin.

    A browser lets any page open a socket to us and adds our cookie, so the server has to check
    (RFC 6455 section 10.2).

    Raises:
        OriginRefused: The origin is neither ours nor allowed, or there is none but a cookie.
    """
    text = one_header(scope, b"origin")
    if text is None:
        if credential.source == "cookie":
            raise OriginRefused("A cookie needs an Origin.")
        return
    origin = parse_origin(text)
    if origin is None or (origin not in allowed and not _is_own(origin, scope, trusted)):
        raise OriginRefused("Pages of this origin may not connect.")


def check_same_site(scope: Scope, credential: Credential, trusted: Networks) -> None:
    """Raise if a request that writes has only a cookie, and not our own page sent it.

    Raises:
        OriginRefused: A cookie came with a write that our own page did not ask for.
    """
    if credential.source != "cookie" or scope["method"] in _SAFE_METHODS:
        return
    if not _is_of_own_page(scope, trusted):
        raise OriginRefused("A cookie is good for requests of our own pages only.")


def _is_of_own_page(scope: Scope, trusted: Networks) -> bool:
    """Whether the browser says that our own page sent the request."""
    site = one_header(scope, b"sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = parse_origin(one_header(scope, b"origin") or "")
    return origin is not None and _is_own(origin, scope, trusted)


def check_cookie_login(
    scope: Scope, allowed: Origins, trusted: Networks, *, has_body: bool = True
) -> None:
    """Raise if a login must not be answered with a cookie.

    Otherwise a foreign page could log its visitors in as its author, who would see what they do
    (login CSRF). A form cannot send JSON, and a browser names the page that sends a request; a
    request without that comes from a program.

    Args:
        scope: The ASGI scope.
        allowed: Origins whose pages may log in.
        trusted: Proxies that we trust.
        has_body: Whether the name and the password stand in a body.

    Raises:
        UnsupportedMediaType: The media type of the body is not JSON.
        OriginRefused: Neither our own page nor an allowed one sent the request.
    """
    if has_body and media_type(scope) != "application/json":
        raise UnsupportedMediaType("A login that sets a cookie is sent as application/json.")
    is_program = not (headers(scope, b"sec-fetch-site") or headers(scope, b"origin"))
    if is_program or cors_origin(scope, allowed) is not None or _is_of_own_page(scope, trusted):
        return
    raise OriginRefused("Pages of this origin may not log in.")


def media_type(scope: Scope) -> str:
    """Return the media type of a body, in lower case and without parameters.

    Raises:
        BadRequest: There is more than one.
    """
    return (one_header(scope, b"content-type") or "").partition(";")[0].strip().lower()


def cors_origin(scope: Scope, allowed: Origins) -> str | None:
    """Return the value of ``Access-Control-Allow-Origin``, or ``None`` for no such header."""
    text = one_header(scope, b"origin")
    return text if text is not None and parse_origin(text) in allowed else None
