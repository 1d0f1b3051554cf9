"""Collection: lists of resources, filtered, paged and cut to the wanted fields, in that order.

MaxScale's clients ask for everything at once. A long list is therefore looked at and sent in
chunks, between which others get their turn, from a selection that is frozen when it begins: the
memory it takes is that of one chunk, and no row is missed or doubled on its pages' account.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from msgspec import Struct, to_builtins
from msgspec.json import decode, encode
from msgspec.json import format as indented
from starlette.responses import Response, StreamingResponse

from gateway.core.model import Object
from gateway.dialects.maxscale.conditions import is_unmodified
from gateway.dialects.maxscale.documents import PageLinks, Shape, Total, Type
from gateway.dialects.maxscale.door import INDENT, JSON, Call
from gateway.dialects.maxscale.filters import Filter
from gateway.dialects.maxscale.query import Tree, pruned

CHUNK: Final = 100  # resources written between two turns: about 3 ms of work
STAMPS: Final = 1000  # resources looked at between two turns: about as much

T = TypeVar("T")


class Ending(Shape, frozen=True, kw_only=True, omit_defaults=True):
    """What follows the rows of a collection."""

    links: PageLinks
    meta: Total | None = None


class Collection(Struct, Generic[T], frozen=True, kw_only=True):
    """What a list is made of.

    Args:
        kind: The type of its resources.
        count: Returns how many there are.
        rows: Returns so many of them after so many.
        render: Returns one as a resource.
        stamp: Returns what changes whenever something happened to one.
    """

    kind: Type
    count: Callable[[], int]
    rows: Callable[[int, int], Sequence[T]]
    render: Callable[[T], Struct]
    stamp: Callable[[T], str]


async def listed(call: Call, collection: Collection[T], filters: Sequence[Filter]) -> Response:
    """Return the reply to a GET of *collection*.

    Raises:
        BadRequest: Fields cannot be read.
        RevisionMismatch: A precondition does not hold.
    """
    query, page = call.query, call.query.page()
    fields = query.fields(collection.kind)
    size, offset = (page.size, page.size * page.number) if page else (collection.count(), 0)
    if filters:
        matching = await _matching(collection, filters)
        total = len(matching)
        rows: Sequence[T] = matching[offset : offset + size]
    else:
        total = collection.count()
        rows = collection.rows(offset, size)
    visibility = call.principal.visibility()
    key = hashlib.blake2b(digest_size=16)
    for part in (visibility, call.scene.base, collection.kind):
        key.update(encode(part))
    key.update(call.scope["query_string"] + b"%d" % call.scene.is_full)
    tag = hashlib.blake2b(b"%d" % total, digest_size=16)
    for place, row in enumerate(rows):
        tag.update(collection.stamp(row).encode() + b"\n")
        if place % STAMPS == STAMPS - 1:
            await asyncio.sleep(0)
    current = call.seen.validators(key.digest(), tag.hexdigest(), call.context.wall_ms())
    headers = current.headers()
    if is_unmodified(call.headers, current, is_read=True):
        return Response(status_code=304, headers=dict(headers))
    ending = Ending(
        links=query.links(call.scene.collection(collection.kind), page, total),
        meta=Total(total=total) if page else None,
    )
    pieces = _written(collection, rows, fields, ending, is_pretty=call.is_pretty)
    if len(rows) > CHUNK:
        return StreamingResponse(pieces, 200, dict(headers), JSON)
    return Response(b"".join([piece async for piece in pieces]), 200, dict(headers), JSON)


def single(
    call: Call, document: Struct, kind: Type, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the reply to a GET of one resource: *document* with the wanted fields.

    Raises:
        BadRequest: Fields cannot be read.
    """
    fields = call.query.fields(kind)
    if fields is None:
        return call.reply(document, headers)
    whole: Object = to_builtins(document)
    return call.reply({**whole, "data": pruned(whole["data"], fields)}, headers)


async def _matching(collection: Collection[T], filters: Sequence[Filter]) -> list[T]:
    found: list[T] = []
    for place, row in enumerate(collection.rows(0, collection.count())):
        # As it is sent: lists are lists there, and what is unset is not there.
        resource = decode(encode(collection.render(row)))
        if all(wanted.matches(resource) for wanted in filters):
            found.append(row)
        if place % CHUNK == CHUNK - 1:
            await asyncio.sleep(0)
    return found


async def _written(
    collection: Collection[T],
    rows: Sequence[T],
    fields: Tree | None,
    ending: Ending,
    *,
    is_pretty: bool,
) -> AsyncIterator[bytes]:
    """Yield the document, a chunk of resources at a time."""
    margin = b"\n" + b" " * (2 * INDENT) if is_pretty else b""
    half = margin[: INDENT + 1]
    yield b"{" + half + (b'"data": [' if is_pretty else b'"data":[')
    for start in range(0, len(rows), CHUNK):
        texts = []
        for row in rows[start : start + CHUNK]:
            resource = collection.render(row)
            text = encode(resource if fields is None else pruned(to_builtins(resource), fields))
            if is_pretty:
                text = indented(text, indent=INDENT).replace(b"\n", margin)
            texts.append(margin + text)
        yield (b"," if start else b"") + b",".join(texts)
        await asyncio.sleep(0)
    yield (half if rows else b"") + b"],"
    rest = encode(ending)
    yield (indented(rest, indent=INDENT) if is_pretty else rest)[1:]
