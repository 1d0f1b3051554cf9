"""Preconditions: ``If-Match`` and ``If-None-Match`` (RFC 9110 section 13).

A header is compared with the validator of the representation that the caller would get.
"""

import re
from typing import Final

from gateway.core.errors import BadRequest, RevisionMismatch
from gateway.http.request import Request

IF_MATCH: Final = r'^(\*|(W/)?"[!#-~]*")$'  # section 13.1.1; a list of tags makes no sense here

_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')
_REVISION: Final = re.compile(r'"([0-9]{1,16})"')


def matches_tag(request: Request, tag: str) -> bool:
    """Whether ``If-None-Match`` names *tag*, compared weakly (section 13.1.2)."""
    wanted = request.header("if-none-match")
    if wanted is None:
        return False
    return wanted.strip() == "*" or tag.removeprefix("W/").strip('"') in _ENTITY_TAG.findall(wanted)


def expected_revision(request: Request) -> int | None:
    """Return the revision that ``If-Match`` asks for; ``*`` is any.

    Raises:
        BadRequest: It is no entity tag.
        RevisionMismatch: No session can have it: it is another entity's tag, or a weak one.
    """
    text = request.header("if-match")
    if text is None or text == "*":
        return None
    if not re.fullmatch(IF_MATCH, text):
        raise BadRequest("If-Match is one entity tag in quotes, or an asterisk.")
    match = _REVISION.fullmatch(text)
    if match is None:
        raise RevisionMismatch
    return int(match[1])
