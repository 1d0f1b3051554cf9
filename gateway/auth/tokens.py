"""JSON Web Tokens: the keys that sign them, their verification, and how one is made.

Each key has exactly one algorithm. A token is verified with the key that its ``kid`` names and the
algorithm of that key, whatever its header says, so ``none`` and a public key used as a secret are
refused (RFC 8725 sections 3.1 and 3.2). Keys come from the settings only, never from a token. A key
set is read again when it is old or lacks the key of a token, at most once a minute; if that fails,
the keys that were read before stay.

Not here: what the bearer of a token may do (``principals``).
"""

import asyncio
import logging
import warnings
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import httpx2
import msgspec
from joserfc import jws, jwt
from joserfc.errors import JoseError, SecurityWarning, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, JWKRegistry, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from msgspec import UNSET, Meta, Struct

from gateway.core.errors import TokenExpired, Unauthorized, Unavailable
from gateway.core.model import Name
from gateway.metrics import KEY_FETCH_FAILURES
from gateway.settings import Settings, SettingsError

LEEWAY_MS: Final = 5_000  # how far the issuer's clock may differ from ours
KEY_SET_BYTES: Final = 64 * 1024  # a key set has a few keys of about a kilobyte; more is not one
KEY_SET_WITHIN_S: Final = 3.0  # a login waits for this at most
KEY_SET_EVERY_MS: Final = 60_000  # between two reads, so that unknown keys do not cause a flood
KEY_SET_FRESH_MS: Final = 900_000  # a withdrawn key is valid for this long at most

log = logging.getLogger(__name__)

# The first one counts for a key that names no algorithm.
_ALGORITHMS: Final[Mapping[str, tuple[str, ...]]] = {
    "oct": ("HS256", "HS384", "HS512"),
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
}
_ALIASES: Final = {"Ed25519": "EdDSA"}  # RFC 9864 section 2.2: its new name
_KEY_TYPES: Final[tuple[type[RSAKey | ECKey | OKPKey], ...]] = (RSAKey, ECKey, OKPKey)


class Claims(Struct, frozen=True, kw_only=True):
    """The claims of a valid token; ``expires_at`` is in milliseconds since the Unix epoch."""

    account: str | None
    workspace: str | None
    scopes: frozenset[str]
    expires_at: int | None


class SigningKey(Struct, frozen=True):
    """A key and the one algorithm it is used with."""

    key: Key
    algorithm: str
    kid: str | None = None


class _Header(Struct):
    alg: str
    kid: str | None = None
    crit: Any = UNSET  # extensions that must be understood; we know none
    b64: Any = UNSET  # RFC 7797 section 7: not for JWTs


class _Registered(Struct):
    """The claims of RFC 7519 section 4.1 that we check; times are seconds until the year 9999."""

    exp: Annotated[float, Meta(ge=0, le=253_402_300_799)] | None = None
    nbf: Annotated[float, Meta(ge=0, le=253_402_300_799)] | None = None
    iss: str | None = None
    aud: str | list[str] | None = None


class _KeySet(Struct):
    keys: list[dict[str, Any]]


class _Exactly(JWSRegistry):
    """A registry of one algorithm, without warnings about algorithms that issuers still use."""

    def get_alg(self, name: str) -> Any:  # noqa: ANN401 - of joserfc
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[_ALIASES.get(name, name)]


def _registry(algorithm: str) -> _Exactly:
    names = [name for name, known in _ALIASES.items() if known == algorithm]
    return _Exactly(algorithms=[algorithm, *names])


def _fix_algorithm(key: Key, named: str | None, wanted: str | None) -> SigningKey:
    """Bind *key* to the algorithm that it names, else to *wanted*, else to its usual one.

    Raises:
        ValueError: The key does not fit the algorithm, or is too short for it.
    """
    kind = key.curve_name if isinstance(key, ECKey | OKPKey) else key.key_type
    fitting = _ALGORITHMS.get(kind, ())
    algorithm = _ALIASES.get(named, named) if named else wanted or next(iter(fitting), None)
    if algorithm not in fitting:
        raise ValueError(f"a key of kind {kind} cannot be used with {algorithm}")
    # RFC 7518 section 3.2: a key of the same size as the hash output, or larger, must be used.
    if isinstance(key, OctKey) and len(key.raw_value) * 8 < int(algorithm[2:]):
        raise ValueError(f"a secret for {algorithm} has at least {int(algorithm[2:]) // 8} bytes")
    return SigningKey(key, algorithm, key.kid)


def configured_key(settings: Settings) -> SigningKey:
    """Return the key of ``jwt_key``.

    Raises:
        SettingsError: It cannot be read, is weak, or does not fit ``jwt_algorithm``.
    """
    text = settings.read_jwt_key()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SecurityWarning)
            key = _pem_key(text) if "-----BEGIN " in text else OctKey.import_key(text)
        return _fix_algorithm(key, None, settings.jwt_algorithm)
    except (JoseError, ValueError, TypeError, SecurityWarning) as error:
        raise SettingsError([f"jwt_key: {error}"]) from None


def _pem_key(text: str) -> Key:
    for kind in _KEY_TYPES:
        try:
            return kind.import_key(text)
        except JoseError:
            continue
    raise ValueError("this kind of key is not supported")


class KeyRing:
    """The trusted keys: the configured one, or a key set that may change.

    Args:
        settings: With ``jwt_key`` or ``jwks``.
    """

    def __init__(self, settings: Settings) -> None:
        self._wanted = settings.jwt_algorithm
        self._place = settings.jwks or ""
        self._keys: tuple[SigningKey, ...] = () if settings.jwks else (configured_key(settings),)
        self._tried_ms: int | None = None
        self._read_ms: int | None = None
        self._reading = asyncio.Lock()

    @property
    def is_set(self) -> bool:
        """Whether the keys come from a key set, which is read again."""
        return bool(self._place)

    async def find(self, kid: str | None, algorithm: str, now_ms: int) -> SigningKey | None:
        """Return the key that a token of this header must be signed with, or ``None``.

        Raises:
            Unavailable: No key set could be read yet.
        """
        if not self._place:
            return self._match(None, algorithm)  # there is one key, whatever a token names
        key = self._match(kid, algorithm)
        old = self._read_ms is None or now_ms - self._read_ms >= KEY_SET_FRESH_MS
        if key is None or (old and not self._reading.locked()):
            await self.refresh(now_ms)
            key = self._match(kid, algorithm)
        if key is None and self._read_ms is None:
            raise Unavailable("The keys that sign tokens cannot be read.")
        return key

    async def refresh(self, now_ms: int) -> None:
        """Read the key set again, unless that was tried within the last minute."""
        async with self._reading:
            if self._tried_ms is not None and now_ms - self._tried_ms < KEY_SET_EVERY_MS:
                return
            self._tried_ms = now_ms
            try:
                self._keys = self._parse(await self._load())
                self._read_ms = now_ms
            except (OSError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
                KEY_FETCH_FAILURES.inc()
                log.warning(
                    "the key set of JWTs cannot be read", extra={"reason": type(error).__name__}
                )

    def _match(self, kid: str | None, algorithm: str) -> SigningKey | None:
        named = [
            key
            for key in self._keys
            if key.algorithm == algorithm and (kid is None or key.kid == kid)
        ]
        return named[0] if named and (kid is not None or len(named) == 1) else None

    async def _load(self) -> bytes:
        if "://" not in self._place:
            return _bounded([_read(self._place)])
        async with (
            asyncio.timeout(KEY_SET_WITHIN_S),
            httpx2.AsyncClient() as client,
            # A compressed body could be large after decompression.
            client.stream("GET", self._place, headers={"Accept-Encoding": "identity"}) as response,
        ):
            response.raise_for_status()
            chunks: list[bytes] = []
            async for chunk in response.aiter_raw():
                chunks.append(chunk)
                _bounded(chunks)
            return b"".join(chunks)

    def _parse(self, data: bytes) -> tuple[SigningKey, ...]:
        found = []
        for number, entry in enumerate(msgspec.json.decode(data, type=_KeySet).keys):
            try:
                found.append(self._entry(entry))
            except (JoseError, ValueError, TypeError, KeyError, SecurityWarning) as error:
                # RFC 7517 section 5: a key that cannot be used does not spoil the others.
                about = {"key": number, "reason": str(error)}
                log.info("a key of the key set is not used", extra=about)
        if not found:
            raise ValueError("no key can be used")
        return tuple(found)

    def _entry(self, entry: dict[str, Any]) -> SigningKey:
        if entry.get("kty") == "oct" and "://" in self._place:
            raise ValueError("a secret that is published is none")
        if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ("verify",)):
            raise ValueError("it is for other uses")
        with warnings.catch_warnings():
            warnings.simplefilter("error", SecurityWarning)
            key = JWKRegistry.import_key(entry)
        return _fix_algorithm(key, key.alg, self._wanted)


def _read(place: str) -> bytes:
    with Path(place).expanduser().open("rb") as file:
        return file.read(KEY_SET_BYTES + 1)


def _bounded(chunks: list[bytes]) -> bytes:
    if sum(map(len, chunks)) > KEY_SET_BYTES:
        raise ValueError("the key set is too large")
    return b"".join(chunks)


class Verifier:
    """Verifies tokens and returns their claims.

    Args:
        settings: With ``jwt_key`` or ``jwks``, what ``iss`` and ``aud`` must be, and claim names.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.keys = KeyRing(settings)

    async def verify(self, token: str, now_ms: int) -> Claims:
        """Return the claims of a valid token.

        Args:
            token: ASCII text, of bounded length.
            now_ms: Milliseconds since the Unix epoch.

        Raises:
            Unauthorized: The token is not signed by our keys, or for another audience.
            TokenExpired: The token has expired.
            Unavailable: No key set could be read yet.
        """
        try:
            header = msgspec.json.decode(_segment(token), type=_Header)
        except (ValueError, RecursionError) as error:
            raise Unauthorized from error
        if header.crit is not UNSET or header.b64 is not UNSET:
            raise Unauthorized
        algorithm = _ALIASES.get(header.alg, header.alg)
        key = await self.keys.find(header.kid, algorithm, now_ms)
        if key is None:
            raise Unauthorized
        try:
            signed = jws.deserialize_compact(token, key.key, registry=_registry(key.algorithm))
            payload = msgspec.json.decode(signed.payload or b"", type=dict[str, Any])
            registered = msgspec.convert(payload, _Registered)
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise Unauthorized from error
        expires_at = self._check(registered, now_ms)
        names = self._settings
        return Claims(
            account=_name(payload, names.claim_account),
            workspace=_name(payload, names.claim_workspace),
            scopes=_scopes(payload, names.claim_scope),
            expires_at=expires_at,
        )

    def _check(self, claims: _Registered, now_ms: int) -> int | None:
        issuer, audience = self._settings.jwt_issuer, self._settings.jwt_audience
        if issuer is not None and claims.iss != issuer:
            raise Unauthorized("The token is from another issuer.")
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        # RFC 7519 section 4.1.3: a party that is not in "aud" must refuse the token.
        if (audience is not None or audiences is not None) and audience not in (audiences or ()):
            raise Unauthorized("The token is for another audience.")
        if claims.nbf is not None and now_ms < int(claims.nbf * 1000) - LEEWAY_MS:
            raise Unauthorized("The token is not valid yet.")
        if claims.exp is None:
            return None
        expires_at = int(claims.exp * 1000)
        if now_ms >= expires_at + LEEWAY_MS:
            raise TokenExpired
        return expires_at


def _segment(token: str) -> bytes:
    first = token.partition(".")[0].encode("ascii")
    return urlsafe_b64decode(first + b"=" * (-len(first) % 4))


def _name(payload: Mapping[str, Any], claim: str) -> str | None:
    if claim not in payload:
        return None
    try:
        return msgspec.convert(payload[claim], Name)
    except msgspec.ValidationError as error:
        raise Unauthorized(f"The claim {claim[:64]} is not acceptable.") from error


def _scopes(payload: Mapping[str, Any], claim: str) -> frozenset[str]:
    try:
        value = msgspec.convert(payload.get(claim, ""), str | list[str])
    except msgspec.ValidationError as error:
        raise Unauthorized(f"The claim {claim[:64]} is not acceptable.") from error
    return frozenset(value.split() if isinstance(value, str) else value)


def create_token(settings: Settings, claims: Claims, now_ms: int) -> str:
    """Return a new token that these settings accept.

    Args:
        settings: With a ``jwt_key`` that can sign: a secret or a private PEM.
        claims: Its claims; those that are ``None`` are left out.
        now_ms: Milliseconds since the Unix epoch.

    Raises:
        SettingsError: There is no key, or only its public half.
    """
    if not settings.jwt_key:
        raise SettingsError(["jwt_key: is needed to make tokens"])
    key = configured_key(settings)
    if not key.key.is_private:
        raise SettingsError(["jwt_key: is a public key, which cannot make tokens"])
    said = {
        "iat": now_ms // 1000,
        "exp": claims.expires_at and claims.expires_at // 1000,
        "iss": settings.jwt_issuer,
        "aud": settings.jwt_audience,
        settings.claim_account: claims.account,
        settings.claim_workspace: claims.workspace,
        settings.claim_scope: " ".join(sorted(claims.scopes)) or None,
    }
    return jwt.encode(
        {"alg": key.algorithm},
        {name: value for name, value in said.items() if value is not None},
        key.key,
        registry=_registry(key.algorithm),
    )
