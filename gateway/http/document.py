"""Documents: replies that never change, with an ETag, compressed if accepted.

Not here: what is in them (``http.openapi``, ``api.asyncapi``, ``api.pages``).
"""

import asyncio
import gzip
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec.json import encode
from starlette.responses import Response

from gateway.auth.credentials import headers
from gateway.http.endpoint import JSON, AnyCall, AnyEndpoint, Endpoint
from gateway.http.preconditions import matches_tag
from gateway.http.request import Request

Json = dict[str, Any]

COMPRESSION: Final = 9  # a document is compressed once


class StaticDocument:
    """A document that is made at the first request for it.

    That takes up to 50 ms, and neither the start nor other connections should wait for it.

    Args:
        make: Returns the text; called once, in a thread.
        media: The media type.
        also: Headers of every reply with the document.
    """

    def __init__(
        self, make: Callable[[], bytes], media: str = JSON, also: Mapping[str, str] | None = None
    ) -> None:
        self._make = make
        self._media = media
        self._also = also or {}
        self._lock = asyncio.Lock()
        self._text = self._packed = b""
        self._digest = ""

    async def reply(self, request: Request) -> Response:
        """Return the document, or that the client has it already (304)."""
        async with self._lock:
            if not self._text:
                await asyncio.to_thread(self._fill)
        is_packed = _takes_gzip(request.scope)
        tag = f'"{self._digest}-gzip"' if is_packed else f'"{self._digest}"'  # RFC 9110, 8.8.3.3
        sent = {"ETag": tag, "Vary": "Accept-Encoding", "Cache-Control": "public, no-cache"}
        sent |= self._also
        if matches_tag(request, tag):
            return Response(status_code=304, headers=sent)
        if is_packed:
            sent["Content-Encoding"] = "gzip"
        body = self._packed if is_packed else self._text
        return Response(body, headers=sent, media_type=self._media)

    def _fill(self) -> None:
        text = self._make()
        self._packed = gzip.compress(text, COMPRESSION, mtime=0)
        self._digest = hashlib.sha256(text).hexdigest()[:24]
        self._text = text


def document_endpoint(path: str, *, summary: str, make: Callable[[], Json]) -> AnyEndpoint:
    """Return the endpoint of a JSON document."""
    document = StaticDocument(lambda: encode(make()))

    async def serve(call: AnyCall) -> Response:
        return await document.reply(call.request)

    return Endpoint(
        "GET",
        path,
        serve,
        summary,
        name=path.strip("/").replace(".", "_"),
        returns={200: dict[str, Any], 304: None},
        is_public=True,
        tag="operations",
    )


def _takes_gzip(scope: Mapping[str, Any]) -> bool:
    """Whether ``Accept-Encoding`` names gzip and does not refuse it (RFC 9110 section 12.5.3)."""
    for coding in ",".join(headers(scope, b"accept-encoding")).lower().split(","):
        name, _, quality = coding.replace(" ", "").partition(";")
        if name == "gzip":
            return quality.removeprefix("q=") not in ("0", "0.0", "0.00", "0.000")
    return False
