"""Key sets: from a file and from a real server, which may change, fail, and lie."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, RSAKey

from gateway.auth.principals import Authenticator
from gateway.auth.tokens import KEY_SET_BYTES, KEY_SET_EVERY_MS, KEY_SET_FRESH_MS, Verifier
from gateway.core.errors import Unauthorized, Unavailable
from gateway.settings import Settings

NOW_MS = 1_800_000_000_000
ONE, TWO = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
SECRET = OctKey.import_key("0123456789abcdef" * 2)


def jwks(**keys: Key) -> bytes:
    """A key set with the public halves, by ``kid``."""
    return json.dumps({"keys": [key.as_dict(kid=kid) for kid, key in keys.items()]}).encode()


def token(key: Key, kid: str | None, algorithm: str = "ES256") -> str:
    """A token of *ann* that names its key."""
    header = {"alg": algorithm} | ({"kid": kid} if kid else {})
    return jwt.encode(header, {"sub": "ann"}, key, algorithms=[algorithm])


async def believes(verifier: Verifier, shown: str, now_ms: int) -> bool:
    """Whether a token of *ann* is good."""
    return (await verifier.verify(shown, now_ms)).account == "ann"


class Issuer:
    """A real server of a key set."""

    def __init__(self) -> None:
        self.body, self.status, self.location, self.asked = b"", 200, "", 0
        self.go = threading.Event()
        self.go.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.go.wait()
                self.send_response(issuer.status)
                self.send_header("Location", issuer.location)
                self.end_headers()
                self.wfile.write(issuer.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"

    def close(self) -> None:
        """Stop; nobody answers any more."""
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """A server of a key set."""
    server = Issuer()
    yield server
    server.close()


async def test_key_of_the_set_is_found_by_its_name(issuer: Issuer) -> None:
    """A token is checked with the key it names, and with no other."""
    issuer.body = jwks(one=ONE, two=TWO)
    verifier = Verifier(Settings(jwks=issuer.url))

    assert await believes(verifier, token(ONE, "one"), NOW_MS)
    assert await believes(verifier, token(TWO, "two"), NOW_MS)
    for wrong in (token(ONE, "two"), token(ONE, "three"), token(ONE, None)):
        with pytest.raises(Unauthorized):
            await verifier.verify(wrong, NOW_MS)
    assert issuer.asked == 1


async def test_token_may_leave_out_the_name_of_the_only_key(issuer: Issuer) -> None:
    """Where one key fits the algorithm, a token need not name it."""
    issuer.body = jwks(one=ONE, other=RSAKey.generate_key(2048))
    verifier = Verifier(Settings(jwks=issuer.url))

    assert await believes(verifier, token(ONE, None), NOW_MS)


async def test_name_stands_for_one_algorithm(issuer: Issuer) -> None:
    """A key that names its algorithm, or gets it from the settings, is used with no other."""
    key = RSAKey.generate_key(2048)
    issuer.body = json.dumps(
        {"keys": [key.as_dict(kid="a", alg="PS256"), key.as_dict(kid="b")]}
    ).encode()
    verifier = Verifier(Settings(jwks=issuer.url, jwt_algorithm="RS512"))

    assert await believes(verifier, token(key, "a", "PS256"), NOW_MS)
    assert await believes(verifier, token(key, "b", "RS512"), NOW_MS)
    for kid, algorithm in (("a", "RS256"), ("a", "RS512"), ("b", "RS256"), ("b", "PS256")):
        with pytest.raises(Unauthorized):
            await verifier.verify(token(key, kid, algorithm), NOW_MS)


async def test_unknown_name_reads_the_set_again_once_a_minute(issuer: Issuer) -> None:
    """A new key is found when a token names it; made-up names make no flood of requests."""
    issuer.body = jwks(one=ONE)
    verifier = Verifier(Settings(jwks=issuer.url))
    await verifier.verify(token(ONE, "one"), NOW_MS)
    issuer.body = jwks(two=TWO)

    for _ in range(3):
        with pytest.raises(Unauthorized):
            await verifier.verify(token(TWO, "two"), NOW_MS + KEY_SET_EVERY_MS - 1)
    assert issuer.asked == 1
    assert await believes(verifier, token(TWO, "two"), NOW_MS + KEY_SET_EVERY_MS)
    assert issuer.asked == 2


async def test_withdrawn_key_is_forgotten(issuer: Issuer) -> None:
    """A key that the issuer took away is believed until the set is old, not for ever."""
    issuer.body = jwks(one=ONE)
    verifier = Verifier(Settings(jwks=issuer.url))
    await verifier.verify(token(ONE, "one"), NOW_MS)
    issuer.body = jwks(two=TWO)

    assert await believes(verifier, token(ONE, "one"), NOW_MS + KEY_SET_FRESH_MS - 1)
    with pytest.raises(Unauthorized):
        await verifier.verify(token(ONE, "one"), NOW_MS + KEY_SET_FRESH_MS)


async def test_failing_issuer_leaves_the_keys_as_they_were(issuer: Issuer) -> None:
    """While the key set cannot be read, the keys of before are believed."""
    issuer.body = jwks(one=ONE)
    verifier = Verifier(Settings(jwks=issuer.url))
    await verifier.verify(token(ONE, "one"), NOW_MS)

    for minute, (status, body) in enumerate(
        [(500, jwks(two=TWO)), (200, b"{"), (200, b'{"keys": []}'), (200, b'{"keys": 5}')]
    ):
        issuer.status, issuer.body = status, body
        now_ms = NOW_MS + KEY_SET_FRESH_MS + minute * KEY_SET_EVERY_MS
        assert await believes(verifier, token(ONE, "one"), now_ms)
    assert issuer.asked == 5


@pytest.mark.parametrize(
    "status,body",
    [
        (404, b""),
        (200, b"[" * 5000),
        (200, b"\xff"),
        (200, jwks(one=ONE) + b" " * KEY_SET_BYTES),
        (200, json.dumps({"keys": [SECRET.as_dict(kid="one")]}).encode()),
        (200, json.dumps({"keys": [ONE.as_dict(kid="one", use="enc")]}).encode()),
        (200, json.dumps({"keys": [ONE.as_dict(kid="one", key_ops=["encrypt"])]}).encode()),
        (200, json.dumps({"keys": [ONE.as_dict(kid="one", alg="ES384")]}).encode()),
        (200, b'{"keys": [{}, {"kty": 5}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}'),
        (302, b""),
    ],
)
async def test_without_any_key_callers_are_told_to_come_back(
    issuer: Issuer, status: int, body: bytes
) -> None:
    """A good token must not be called bad because the gateway has no usable key to check it."""
    issuer.status, issuer.body, issuer.location = status, body, issuer.url + "/elsewhere"
    verifier = Verifier(Settings(jwks=issuer.url))

    with pytest.raises(Unavailable):
        await verifier.verify(token(ONE, "one"), NOW_MS)
    assert issuer.asked == 1  # a redirect is not followed


async def test_unusable_keys_do_not_spoil_the_others(issuer: Issuer) -> None:
    """A set may hold keys of kinds that we do not know (RFC 7517 section 5)."""
    new = {"kty": "AKP", "kid": "pq"}
    issuer.body = json.dumps({"keys": [new, {}, ONE.as_dict(kid="one")]}).encode()

    assert await believes(Verifier(Settings(jwks=issuer.url)), token(ONE, "one"), NOW_MS)


async def test_nobody_listens_is_a_failure_like_others(issuer: Issuer) -> None:
    """An issuer that is away is no crash."""
    verifier = Verifier(Settings(jwks=issuer.url))
    issuer.close()

    with pytest.raises(Unavailable):
        await verifier.verify(token(ONE, "one"), NOW_MS)


async def test_callers_at_once_share_one_reading(issuer: Issuer) -> None:
    """A crowd at the start makes one request, and those who waited are let in."""
    issuer.body = jwks(one=ONE)
    issuer.go.clear()
    verifier = Verifier(Settings(jwks=issuer.url))
    crowd = asyncio.gather(*(verifier.verify(token(ONE, "one"), NOW_MS) for _ in range(20)))
    await asyncio.sleep(0)
    issuer.go.set()

    assert len(await crowd) == 20
    assert issuer.asked == 1


async def test_keys_are_there_before_the_first_caller(issuer: Issuer) -> None:
    """At its start the gateway reads the key set; an issuer that fails does not stop it."""
    issuer.body = jwks(one=ONE)
    auth = Authenticator(Settings(jwks=issuer.url))
    await auth.start(NOW_MS)

    assert issuer.asked == 1
    assert (await auth.authenticate(token(ONE, "one"), NOW_MS)).account == "ann"
    assert issuer.asked == 1
    issuer.status = 500
    await Authenticator(Settings(jwks=issuer.url)).start(NOW_MS)


async def test_file_is_a_key_set_too(tmp_path: Path) -> None:
    """A key set in a file works like one at an address, and may hold secrets."""
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(one=ONE, secret=SECRET))
    verifier = Verifier(Settings(jwks=str(path)))

    assert await believes(verifier, token(ONE, "one"), NOW_MS)
    assert await believes(verifier, token(SECRET, "secret", "HS256"), NOW_MS)
    path.write_bytes(jwks(two=TWO))
    assert await believes(verifier, token(TWO, "two"), NOW_MS + KEY_SET_EVERY_MS)
    path.unlink()
    assert await believes(verifier, token(TWO, "two"), NOW_MS + 2 * KEY_SET_FRESH_MS)


async def test_public_key_of_the_set_is_never_a_secret(issuer: Issuer) -> None:
    """A token signed by HS256 with a public key of the set is a forgery (RFC 8725, 2.1)."""
    key = RSAKey.generate_key(2048)
    issuer.body = jwks(one=key)
    verifier = Verifier(Settings(jwks=issuer.url))
    secret = OctKey(key.as_pem(private=False), None)

    for kid in ("one", None):
        with pytest.raises(Unauthorized):
            await verifier.verify(token(secret, kid, "HS256"), NOW_MS)


async def test_token_brings_no_key_of_its_own(issuer: Issuer) -> None:
    """Keys and addresses in a token's header are not looked at."""
    issuer.body = jwks(evil=TWO)
    header = {"alg": "ES256", "jwk": TWO.as_dict(), "jku": issuer.url, "kid": "evil"}
    forged = jwt.encode(header, {"sub": "admin"}, TWO)

    with pytest.raises(Unauthorized):
        await Verifier(Settings(jwt_key=ONE.as_pem().decode())).verify(forged, NOW_MS)
    assert issuer.asked == 0
