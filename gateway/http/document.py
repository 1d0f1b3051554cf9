"""Documents: an endpoint that serves one JSON document with an ETag, compressed if accepted.

Not here: what is in it (``http.openapi``, ``api.asyncapi``).
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

Json = dict[str, Any]

COMPRESSION: Final = 9  # a document is compressed once


class _Document:
    """A JSON document that is made at the first request for it.

    That takes some 50 ms, and neither the start nor other connections should wait for it.
    """

    def __init__(self, make: Callable[[], Json]) -> None:
        self._make = make
        self._lock = asyncio.Lock()
        self.text = self.packed = b""
        self.tag = ""

    async def ready(self) -> None:
        """Make the document once, in a thread."""
        async with self._lock:
            if not self.text:
                await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        text = encode(self._make())
        self.tag = f'"{hashlib.sha256(text).hexdigest()[:24]}"'
        self.packed = gzip.compress(text, COMPRESSION, mtime=0)
        self.text = text


def document_endpoint(path: str, *, summary: str, make: Callable[[], Json]) -> AnyEndpoint:
    """Return the endpoint of a JSON document, which is compressed for clients that accept it."""
    made = _Document(make)

    async def serve(call: AnyCall) -> Response:
        await made.ready()
        tag = made.tag
        sent = {"ETag": tag, "Vary": "Accept-Encoding", "Cache-Control": "public, no-cache"}
        if matches_tag(call.request, tag):
            return Response(status_code=304, headers=sent)
        if not _takes_gzip(call.request.scope):
            return Response(made.text, headers=sent, media_type=JSON)
        sent["Content-Encoding"] = "gzip"
        return Response(made.packed, headers=sent, media_type=JSON)

    return Endpoint(
        method="GET",
        path=path,
        handler=serve,
        name=path.strip("/").replace(".", "_"),
        returns={200: dict[str, Any], 304: None},
        is_public=True,
        summary=summary,
        tag="operations",
    )


def _takes_gzip(scope: Mapping[str, Any]) -> bool:
    """Whether ``Accept-Encoding`` names gzip and does not refuse it (RFC 9110 section 12.5.3)."""
    for coding in ",".join(headers(scope, b"accept-encoding")).lower().split(","):
        name, _, quality = coding.replace(" ", "").partition(";")
        if name == "gzip":
            return quality.removeprefix("q=") not in ("0", "0.0", "0.00", "0.000")
    return False
