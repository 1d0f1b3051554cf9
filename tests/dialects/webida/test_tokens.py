"""Tokens: ours, nobody else's."""

from base64 import urlsafe_b64decode

import pytest
from msgspec.structs import replace

from gateway.dialects.webida.tokens import Signer, WebidaClaims

SIGNER = Signer(b"secret of the store")
CLAIMS = WebidaClaims(type="A", jti="1", iat=1_000, exp=1_600, sub="ann", session_id="s1")


def test_token_says_what_was_signed() -> None:
    """Every node of a store reads what another one signed."""
    assert Signer(b"secret of the store").read(SIGNER.sign(CLAIMS)) == CLAIMS


def test_token_is_a_json_web_token() -> None:
    """Programs that look into a token find the claims of the product."""
    head, payload, _ = SIGNER.sign(CLAIMS).split(".")

    assert urlsafe_b64decode(head + "=") == b'{"alg":"HS256","typ":"JWT"}'
    assert b'"type":"A"' in urlsafe_b64decode(payload + "==")
    assert b'"sessionId":"s1"' in urlsafe_b64decode(payload + "==")


def test_token_of_another_store_is_none() -> None:
    """A token is good for the sessions of its own store only."""
    assert SIGNER.read(Signer(b"another").sign(CLAIMS)) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "a.b.c", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.", "é" * 10),
        SIGNER.sign(CLAIMS)[:-1],
        SIGNER.sign(CLAIMS) + "A",
        SIGNER.sign(CLAIMS).replace(".", ".A", 1),
        SIGNER.sign(CLAIMS) + "é",
        SIGNER.sign(replace(CLAIMS, sub="a" * 5_000)),
        SIGNER.sign(CLAIMS).replace("eyJhbGciOiJIUzI1NiIs", "eyJhbGciOiJub25lIiwi", 1),
    ],
)
def test_changed_token_is_none(text: str) -> None:
    """What is not whole, ours and of a usual length is no token."""
    assert SIGNER.read(text) is None


def test_token_of_a_version_that_says_it_otherwise_is_none() -> None:
    """A good signature over something else is no login."""
    signed = SIGNER.sign(CLAIMS).rpartition(".")[0].partition(".")[0] + ".e30"

    assert SIGNER.read(f"{signed}.{SIGNER._signature(signed)}") is None  # noqa: SLF001


def test_token_expires_with_some_leeway() -> None:
    """Clocks of two nodes may differ by five seconds."""
    assert not CLAIMS.is_expired(1_604_999)
    assert CLAIMS.is_expired(1_605_000)


def test_mark_changes_with_the_password_and_tells_nothing() -> None:
    """What stands for a password is the same on every node and is no hash of it."""
    assert SIGNER.mark("$argon2 one") == Signer(b"secret of the store").mark("$argon2 one")
    assert SIGNER.mark("$argon2 one") != SIGNER.mark("$argon2 two")
