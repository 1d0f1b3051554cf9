"""JWTs: real keys of every kind, what their claims mean, and forgeries."""

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from gateway.auth.tokens import (
    LEEWAY_MS,
    Claims,
    Verifier,
    configured_key,
    create_token,
)
from gateway.core.errors import TokenExpired, Unauthorized
from gateway.settings import Algorithm, Settings, SettingsError

NOW_MS = 1_800_000_000_000
NOW_S = NOW_MS // 1000
SECRET = "0123456789abcdef" * 4
NOBODY = Claims(account=None, workspace=None, scopes=frozenset(), expires_at=None)
ANN = Claims(account="ann", workspace="w", scopes=frozenset({"read", "close"}), expires_at=None)

RSA = RSAKey.generate_key(2048)
KEYS: dict[str, Key] = {
    "HS256": OctKey.import_key(SECRET),
    "RS256": RSA,
    "ES256": ECKey.generate_key("P-256"),
    "ES384": ECKey.generate_key("P-384"),
    "ES512": ECKey.generate_key("P-521"),
    "EdDSA": OKPKey.generate_key("Ed25519"),
}


def pem(key: Key, *, private: bool = True) -> str:
    """A key as PEM text."""
    assert not isinstance(key, OctKey)
    return key.as_pem(private=private).decode()


def b64(data: bytes) -> str:
    """Base64url as tokens have it."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(header: object, claims: object, secret: bytes = SECRET.encode()) -> str:
    """A token signed with HS256, whatever its header says."""
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def hs256(**claims: object) -> str:
    """A well-signed token with these claims."""
    return forge({"alg": "HS256"}, claims)


@pytest.mark.parametrize(
    "name,algorithm,key",
    [
        ("HS256", None, SECRET),
        ("HS384", "HS384", SECRET),
        ("HS512", "HS512", SECRET),
        ("RS256", None, pem(RSA)),
        ("PS384", "PS384", pem(RSA)),
        ("ES256", None, pem(KEYS["ES256"])),
        ("ES384", None, pem(KEYS["ES384"])),
        ("ES512", None, pem(KEYS["ES512"])),
        ("EdDSA", None, pem(KEYS["EdDSA"])),
    ],
)
async def test_token_of_every_algorithm_is_made_and_believed(
    name: str, algorithm: Algorithm | None, key: str
) -> None:
    """A secret or a private PEM makes tokens that the same settings accept."""
    settings = Settings(jwt_key=key, jwt_algorithm=algorithm)

    assert configured_key(settings).algorithm == name
    assert await Verifier(settings).verify(create_token(settings, ANN, NOW_MS), NOW_MS) == ANN


@pytest.mark.parametrize("name", ["RS256", "ES256", "EdDSA"])
async def test_public_key_checks_and_does_not_sign(name: str) -> None:
    """With the public half tokens are believed, and none can be made."""
    token = create_token(Settings(jwt_key=pem(KEYS[name])), ANN, NOW_MS)
    settings = Settings(jwt_key=pem(KEYS[name], private=False))

    assert await Verifier(settings).verify(token, NOW_MS) == ANN
    with pytest.raises(SettingsError, match="public key"):
        create_token(settings, ANN, NOW_MS)
    with pytest.raises(SettingsError, match="needed"):
        create_token(Settings(), ANN, NOW_MS)


async def test_new_name_of_an_algorithm_is_the_same_algorithm() -> None:
    """A token whose header says Ed25519 (RFC 9864) is what others call EdDSA."""
    key = KEYS["EdDSA"]
    token = jwt.encode({"alg": "Ed25519"}, {"sub": "ann"}, key, algorithms=["Ed25519"])

    assert (await Verifier(Settings(jwt_key=pem(key))).verify(token, NOW_MS)).account == "ann"


@pytest.mark.parametrize(
    "key,algorithm,reason",
    [
        ("short", None, "at least 32 bytes|112 bits"),
        ("x" * 32, "HS512", "at least 64 bytes"),
        ("x" * 32, "RS256", "a key of kind oct cannot be used with RS256"),
        (pem(RSA, private=False), "HS256", "a key of kind RSA cannot be used with HS256"),
        (pem(KEYS["ES256"]), "ES384", "a key of kind P-256 cannot be used with ES384"),
        (pem(OKPKey.generate_key("X25519")), None, "a key of kind X25519 cannot"),
        (pem(ECKey.generate_key("secp256k1")), None, "a key of kind secp256k1 cannot"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", None, "jwt_key: "),
        ("-----BEGIN NOTHING-----", None, "jwt_key: "),
    ],
)
def test_key_that_cannot_be_used_is_refused_at_the_start(
    key: str, algorithm: Algorithm | None, reason: str
) -> None:
    """A key that is weak, broken or of another kind than its algorithm starts no gateway."""
    with pytest.raises(SettingsError, match=reason):
        Verifier(Settings(jwt_key=key, jwt_algorithm=algorithm))


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        forge({}, {}),
        forge([], {}),
        forge({"alg": 5}, {}),
        forge({"alg": "HS256"}, [1]),
        forge({"alg": "HS256"}, "x"),
        forge({"alg": "HS512"}, {"sub": "ann"}),
        forge({"alg": "RS256"}, {"sub": "ann"}),
        forge({"alg": "hs256"}, {"sub": "ann"}),
        forge({"alg": "none"}, {"sub": "ann"}),
        forge({"alg": "none"}, {"sub": "ann"}).rpartition(".")[0] + ".",
        forge({"alg": "HS256"}, {"sub": "ann"}).rpartition(".")[0] + ".",
        forge({"alg": "HS256"}, {"sub": "ann"}, b"other" * 8),
        forge({"alg": "HS256"}, {"sub": "ann"}) + ".x",
        forge({"alg": "HS256"}, {"sub": "ann"}) + "=",
        forge({"alg": "HS256", "crit": ["exp"], "exp": 1}, {"sub": "ann"}),
        forge({"alg": "HS256", "b64": False, "crit": ["b64"]}, {"sub": "ann"}),
        forge({"alg": "HS256", "kid": 5}, {"sub": "ann"}),
        f"{b64(b'[' * 3000)}.e30.x",
        f"{b64(b'{' + b' ' * 600)}.e30.x",
    ],
)
async def test_forged_token_is_refused_without_a_word(token: str) -> None:
    """Whatever is not signed by our key in our way gets one and the same answer."""
    with pytest.raises(Unauthorized) as caught:
        await Verifier(Settings(jwt_key=SECRET)).verify(token, NOW_MS)

    assert type(caught.value) is Unauthorized
    assert caught.value.detail == Unauthorized.title


@pytest.mark.parametrize("name", ["RS256", "ES256", "EdDSA"])
async def test_public_key_is_never_a_secret(name: str) -> None:
    """A token signed by HS256 with the text of the public key is a forgery (RFC 8725, 2.1)."""
    public = pem(KEYS[name], private=False)
    verifier = Verifier(Settings(jwt_key=public))

    for secret in (public, public.strip(), public.replace("\n", "")):
        for algorithm in ("HS256", name):
            token = forge({"alg": algorithm}, {"sub": "ann"}, secret.encode())
            with pytest.raises(Unauthorized):
                await verifier.verify(token, NOW_MS)


async def test_expired_token_is_told_so_after_the_leeway() -> None:
    """Clocks may differ by five seconds; then the token has expired, and only then."""
    verifier, token = Verifier(Settings(jwt_key=SECRET)), hs256(exp=NOW_S + 0.5)

    assert (await verifier.verify(token, NOW_MS + 500 + LEEWAY_MS - 1)).expires_at == NOW_MS + 500
    with pytest.raises(TokenExpired):
        await verifier.verify(token, NOW_MS + 500 + LEEWAY_MS)
    with pytest.raises(Unauthorized) as caught:
        await verifier.verify(token[:-4] + "AAAA", NOW_MS + 500 + LEEWAY_MS)
    assert not isinstance(caught.value, TokenExpired)


async def test_token_of_tomorrow_is_refused_before_the_leeway() -> None:
    """A token that is not valid yet is good five seconds early, not more."""
    verifier, token = Verifier(Settings(jwt_key=SECRET)), hs256(nbf=NOW_S)

    assert await verifier.verify(token, NOW_MS - LEEWAY_MS) == NOBODY
    with pytest.raises(Unauthorized, match="not valid yet"):
        await verifier.verify(token, NOW_MS - LEEWAY_MS - 1)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": "soon"},
        {"exp": True},
        {"exp": -1},
        {"exp": 1e300},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"nbf": "x"},
        {"iss": 5},
        {"aud": 5},
        {"aud": [5]},
        {"sub": 5},
        {"sub": ""},
        {"sub": "a\x00b"},
        {"sub": "x" * 257},
        {"sub": None},
        {"workspace": ["w"]},
        {"scope": 5},
        {"scope": ["read", 5]},
    ],
)
async def test_claim_of_a_wrong_kind_is_refused(claims: dict[str, object]) -> None:
    """A claim that is not what it should be makes the token worthless, not the claim unset."""
    with pytest.raises(Unauthorized):
        await Verifier(Settings(jwt_key=SECRET)).verify(hs256(**claims), NOW_MS)


@pytest.mark.parametrize(
    "issuer_name,audience,claims,good",
    [
        ("i", None, {"iss": "i"}, True),
        ("i", None, {"iss": "j"}, False),
        ("i", None, {}, False),
        (None, None, {"iss": "anybody"}, True),
        (None, "me", {"aud": "me"}, True),
        (None, "me", {"aud": ["you", "me"]}, True),
        (None, "me", {"aud": "you"}, False),
        (None, "me", {"aud": "memory"}, False),
        (None, "me", {"aud": []}, False),
        (None, "me", {}, False),
        (None, None, {"aud": "you"}, False),
    ],
)
async def test_token_for_others_is_refused(
    issuer_name: str | None, audience: str | None, claims: dict[str, Any], good: bool
) -> None:
    """The issuer must be ours; a token that names who it is for must name us."""
    settings = Settings(jwt_key=SECRET, jwt_issuer=issuer_name, jwt_audience=audience)

    if good:
        assert await Verifier(settings).verify(hs256(**claims), NOW_MS) == NOBODY
    else:
        with pytest.raises(Unauthorized, match="another"):
            await Verifier(settings).verify(hs256(**claims), NOW_MS)


async def test_made_token_passes_its_own_checks() -> None:
    """What ``create_token`` makes carries the configured issuer, audience and claim names."""
    settings = Settings(
        jwt_key=SECRET,
        jwt_issuer="i",
        jwt_audience="me",
        claim_account="user",
        claim_scope="permissions",
        claim_workspace="tenant",
    )
    claims = Claims(
        account="ann", workspace="w", scopes=frozenset({"read"}), expires_at=NOW_MS + 60_000
    )

    assert await Verifier(settings).verify(create_token(settings, claims, NOW_MS), NOW_MS) == claims


async def test_scopes_may_be_a_list() -> None:
    """Issuers spell scopes as text with blanks or as a list."""
    verifier = Verifier(Settings(jwt_key=SECRET))

    for scope in ("read  close", ["close", "read"]):
        claims = await verifier.verify(hs256(scope=scope), NOW_MS)
        assert claims.scopes == {"read", "close"}
