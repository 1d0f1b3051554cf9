"""``X-Forwarded-Prefix``: what a trusted proxy took off the path comes back in what is answered."""

from typing import Final

from msgspec.structs import replace

from gateway.settings import Settings
from tests.server.conftest import serving

KEPT: Final = {
    "/live": "/live",
    "/a/b.c~d/": "/a/b.c~d",
    "/live, /inner": "/live",
    "": "",
    "/": "",
    "live": "",
    "//evil.example": "",
    "/../etc": "",
    "/a b": "",
    '/a"b': "",
    "https://evil.example": "",
    "/" + "a" * 65: "",
    "/a" * 9: "",
}


async def test_prefix_of_a_trusted_proxy_is_a_plain_path(settings: Settings) -> None:
    """``Location`` and the links of errors begin with it; anything but a path is left out."""
    async with (
        serving(replace(settings, trusted_proxies=("127.0.0.1",))) as gateway,
        gateway.http() as http,
    ):
        for number, (sent, kept) in enumerate(KEPT.items()):
            said = {"X-Forwarded-Prefix": sent}
            opened = await http.post("/v1/sessions", json={"id": f"s-{number}"}, headers=said)
            unknown = await http.get("/v1/sessions/unknown", headers=said)
            listed = await http.get("/maxscale/v1/sessions", headers=said)

            assert opened.headers["location"] == f"{kept}/v1/sessions/s-{number}"
            assert unknown.json()["type"] == f"{kept}/docs#not_found"
            link = listed.json()["links"]["self"]
            assert link.startswith(f"{gateway.url}{kept}/maxscale/v1/sessions")


async def test_prefix_of_anybody_else_is_left_out(settings: Settings) -> None:
    """A client cannot send others elsewhere by what it claims."""
    async with serving(settings) as gateway, gateway.http() as http:
        said = {"X-Forwarded-Prefix": "/evil"}
        opened = await http.post("/v1/sessions", json={"id": "s-1"}, headers=said)

    assert opened.headers["location"] == "/v1/sessions/s-1"
