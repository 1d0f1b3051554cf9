"""Collection: lists of resources, filtered, paged and cut to the wanted fields, in that order.

MaxScale's clients ask for everything at once. A long list is therefore searched and sent in chunks,
between which other requests have their turn. The selection is frozen when it begins, so that no row
is missed or sent twice, and the memory a reply takes is that of one chunk.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct, to_builtins
from msgspec.json import decode, encode
from msgspec.json import format as indented
from starlette.responses import Response, StreamingResponse

from gateway.auth.principals import Principal
from gateway.core.model import Object
from gateway.dialects.maxscale.conditions import ValidatorCache, is_unmodified
from gateway.dialects.maxscale.filters import DocumentFilter
from gateway.dialects.maxscale.query import CommonParameters, FieldTree, pruned
from gateway.dialects.maxscale.render import RenderContext
from gateway.dialects.maxscale.schema import JsonApiObject, PageLinks, ResourceType, Total
from gateway.http.endpoint import JSON, Call, paced

INDENT: Final = 4  # blanks a level, as MaxScale writes
CHUNK: Final = 100  # resources written between two turns: about 3 ms of work

T = TypeVar("T")

ApiCall = Call[Principal, CommonParameters, Any]


class CollectionEnd(JsonApiObject, frozen=True, kw_only=True, omit_defaults=True):
    """The members of a collection's document after its rows."""

    links: PageLinks
    meta: Total | None = None


class Collection(Struct, Generic[T], frozen=True, kw_only=True):
    """The source of a list.

    Args:
        kind: The type of its resources.
        count: Returns how many there are.
        all: Returns all of them.
        page: Returns so many of them after so many.
        render: Returns one as a resource.
        tag: Returns a text that changes whenever something happened to one.
    """

    kind: ResourceType
    count: Callable[[], int]
    all: Callable[[], Sequence[T]]
    page: Callable[[int, int], Sequence[T]]
    render: Callable[[T], Struct]
    tag: Callable[[T], str]


def is_pretty(call: ApiCall) -> bool:
    """Whether the reply is indented; the seed's server did so only when asked."""
    is_seed = call.context.settings.maxscale_generation == "seed"
    return call.query.is_pretty(default=not is_seed)


def document_reply(
    call: ApiCall, document: object, headers: Mapping[str, str] | None = None
) -> Response:
    """Return *document* as a reply."""
    text = encode(document)
    body = indented(text, indent=INDENT) if is_pretty(call) else text
    return Response(body, 200, dict(headers or {}), JSON)


def resource_reply(
    call: ApiCall, document: Struct, kind: ResourceType, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the reply to a GET of one resource: *document* with the wanted fields.

    Raises:
        BadRequest: The fields cannot be read.
    """
    fields = call.query.fields(kind)
    if fields is None:
        return document_reply(call, document, headers)
    whole: Object = to_builtins(document)
    return document_reply(call, {**whole, "data": pruned(whole["data"], fields)}, headers)


async def collection_reply(
    call: ApiCall,
    collection: Collection[T],
    filters: Sequence[DocumentFilter],
    context: RenderContext,
    validators: ValidatorCache,
) -> Response:
    """Return the reply to a GET of *collection*.

    Raises:
        BadRequest: The fields cannot be read.
        RevisionMismatch: A precondition does not hold.
    """
    query, page = call.query, call.query.page()
    fields = query.fields(collection.kind)
    start = page.size * page.number if page else 0
    if page and not filters:
        total, rows = collection.count(), collection.page(start, page.size)
    else:
        found = await _matching(collection, filters) if filters else collection.all()
        total, rows = len(found), found[start : start + page.size] if page else found
    tag = await _tag_of(collection, rows, total)
    current = validators.validators(
        _name_of(call, collection, context), tag, call.context.wall_ms()
    )
    headers = dict(current.headers())
    if is_unmodified(call.request.headers(), current, is_read=True):
        return Response(status_code=304, headers=headers)
    end = CollectionEnd(
        links=query.links(context.collection(collection.kind), page, total),
        meta=Total(total=total) if page else None,
    )
    pieces = _written(collection, rows, fields, end, is_pretty=is_pretty(call))
    if len(rows) > CHUNK:
        return StreamingResponse(pieces, 200, headers, JSON)
    return Response(b"".join([piece async for piece in pieces]), 200, headers, JSON)


async def _matching(collection: Collection[T], filters: Sequence[DocumentFilter]) -> list[T]:
    found: list[T] = []
    async for row in paced(collection.all()):
        # As it is sent: lists are lists there, and what is unset is not there.
        resource = decode(encode(collection.render(row)))
        if all(wanted.matches(resource) for wanted in filters):
            found.append(row)
    return found


async def _tag_of(collection: Collection[T], rows: Sequence[T], total: int) -> str:
    """Return a digest of what happened to *rows*."""
    digest = hashlib.blake2b(b"%d" % total, digest_size=16)
    async for row in paced(rows):
        digest.update(collection.tag(row).encode() + b"\n")
    return digest.hexdigest()


def _name_of(call: ApiCall, collection: Collection[T], context: RenderContext) -> bytes:
    """Return what tells a representation from all others."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (call.caller.visibility(), context.base, collection.kind):
        digest.update(encode(part))
    digest.update(call.request.query_string + b"%d" % context.is_full)
    return digest.digest()


async def _written(
    collection: Collection[T],
    rows: Sequence[T],
    fields: FieldTree | None,
    end: CollectionEnd,
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
    rest = encode(end)
    yield (indented(rest, indent=INDENT) if is_pretty else rest)[1:]
