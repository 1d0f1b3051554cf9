"""Request head: what its version, target, Host and transfer coding must be (RFC 9112); no I/O.

httptools refuses what has no form: bad lines, names, bytes and lengths. It lets pass a request
without a Host or with two, a Host that is none, transfer codings that nobody here decodes, targets
that are no path, and versions that are not spoken here. Those are refused in this module, before
any application is asked, so that no two of them (nor a proxy in front) read a request differently.

Not here: sizes and deadlines (``http``), what opens a WebSocket (``handshake``).
"""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from gateway.transport.responses import Refusal, RequestRefused, bad_request

Header = tuple[bytes, bytes]

ASTERISK: Final = b"*"  # the target of OPTIONS for the server as a whole (RFC 9112 section 3.2.4)
HOSTS_KEPT: Final = 256  # answers of is_authority that are remembered; clients name few hosts
PORT_MAX: Final = 65_535

_VERSIONS: Final = frozenset({"1.0", "1.1"})
_UNKNOWN_VERSION: Final = Refusal(505, "HTTP version")
_UNKNOWN_CODING: Final = Refusal(501, "transfer coding")

# RFC 3986 section 3.2.2, without user information: reg-name or IP literal, and a port.
_AUTHORITY: Final = re.compile(
    rb"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?"
)
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)([^?]*)(.*)", re.IGNORECASE | re.DOTALL)
_CODING: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def check_head(method: str, version: str, target: bytes, headers: list[Header]) -> bytes:
    """Check a whole head and return its target as a path with its query, or ``*``.

    The authority of an absolute target takes the place of Host in *headers* (section 3.2.2).

    Args:
        method: As it was sent.
        version: Major and minor, as ASGI has it.
        target: As it was sent.
        headers: Names in lower case, values without blanks around them.

    Raises:
        RequestRefused: The request breaks a rule of HTTP, or wants what is not done here.
    """
    if version not in _VERSIONS:
        is_other = int(version.partition(".")[0]) > 1
        raise RequestRefused(_UNKNOWN_VERSION) if is_other else bad_request("no HTTP version")
    hosts: list[bytes] = []
    codings: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        raise bad_request("not one Host")
    if hosts and not is_authority(hosts[0]):
        raise bad_request("malformed Host")
    if codings:
        _check_codings(codings, version)
    if target.startswith(b"/") and b"#" not in target:
        return target
    return _check_other_form(method, target, headers)


@lru_cache(HOSTS_KEPT)
def is_authority(value: bytes) -> bool:
    """Return whether *value* is a host and maybe a port; it may be empty (RFC 9110 section 7.2)."""
    match = _AUTHORITY.fullmatch(value)
    if match is None or int(match[2] or 0) > PORT_MAX:
        return False
    if match[1] is not None:
        try:
            IPv6Address(match[1].decode())
        except AddressValueError:
            return False
    return True


def _check_codings(values: list[bytes], version: str) -> None:
    """Refuse every transfer coding but ``chunked`` (RFC 9112 sections 6.1 and 6.3)."""
    if version == "1.0":
        raise bad_request("transfer coding in HTTP/1.0")
    if values[0].lower() == b"chunked" and len(values) == 1:
        return
    codings = [coding.strip(b" \t").lower() for coding in b",".join(values).split(b",")]
    is_framed = codings[-1] == b"chunked" and b"chunked" not in codings[:-1]
    if is_framed and all(_CODING.match(coding) for coding in codings):
        raise RequestRefused(_UNKNOWN_CODING)
    raise bad_request("the transfer codings do not end a body")


def _check_other_form(method: str, target: bytes, headers: list[Header]) -> bytes:
    """Return the target of a request that does not name a path alone."""
    if target == ASTERISK and method == "OPTIONS":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None or b"#" in target:
        raise bad_request("the target is no path")
    authority, path, query = match.groups()
    if not authority or authority.startswith(b":") or not is_authority(authority):
        raise bad_request("malformed authority")
    headers[:] = [header for header in headers if header[0] != b"host"]
    headers.insert(0, (b"host", authority))
    if not path and not query and method == "OPTIONS":
        return ASTERISK
    return (path or b"/") + query
