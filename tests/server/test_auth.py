"""Auth: what tokens are worth, what principals may see, and the secrets we make ourselves."""

import asyncio
import hashlib
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.auth.principals import (
    TOKEN_MAX,
    Authenticator,
    Principal,
    Scope,
    hash_secret,
    kept_admin_key,
    may_attach,
    mint_session_secret,
    secret_matches,
    split_session_token,
)
from gateway.auth.tokens import LEEWAY_MS, Claims, create_token
from gateway.core.errors import Forbidden, TokenExpired, Unauthorized
from gateway.core.model import Private, Session
from gateway.core.query import Visibility
from gateway.settings import ApiKey, Settings, SettingsError

NOW_MS = 1_800_000_000_000
SECRET = "0123456789abcdef" * 2
EVERYTHING = frozenset(Scope)
SESSION = Session(id="a", number=1, revision=1, created_at=0, workspace="w", account="ann")


def who(*scopes: Scope, account: str | None = None, workspace: str | None = None) -> Principal:
    """A principal."""
    return Principal(name="x", scopes=frozenset(scopes), account=account, workspace=workspace)


@pytest.mark.parametrize(
    "principal,visibility",
    [
        (who(Scope.ADMIN, account="a", workspace="w"), Visibility("all")),
        (who(Scope.READ, account="a"), Visibility("all")),
        (who(Scope.READ, workspace="w", account="a"), Visibility("workspace", "w")),
        (who(Scope.WRITE, workspace="w"), Visibility("nothing")),
        (who(Scope.CONNECT, account="a", workspace="w"), Visibility("account", "a", "w")),
        (who(Scope.WRITE), Visibility("nothing")),
        (who(), Visibility("nothing")),
        (Principal.of_session("s"), Visibility("session", "s")),
        (replace(Principal.of_session("s"), account="a"), Visibility("account", "a")),
    ],
)
def test_scopes_decide_what_may_be_seen(principal: Principal, visibility: Visibility) -> None:
    """Admin sees all, read its workspace, everybody else their account or session, else nothing."""
    assert principal.visibility() == visibility


def test_who_has_no_account_sees_no_session_without_one() -> None:
    """Unset never equals unset."""
    assert not who(Scope.CONNECT).visibility().allows(replace(SESSION, account=None))


def test_admin_may_everything() -> None:
    """Admin implies every scope; other scopes imply none."""
    for scope in Scope:
        who(Scope.ADMIN).require(scope)
    with pytest.raises(Forbidden, match="close"):
        who(Scope.WRITE).require(Scope.CLOSE)
    assert who(Scope.ADMIN).is_full
    assert who(Scope.WRITE).is_full
    assert not who(Scope.READ, Scope.CLOSE, Scope.CONNECT).is_full


def test_scopes_are_good_for_the_tokens_workspace() -> None:
    """A token with a workspace does nothing to sessions of another one, or of none."""
    assert who(Scope.WRITE).covers("w")
    assert who(Scope.WRITE, workspace="w").covers("w")
    assert not who(Scope.WRITE, workspace="w").covers("v")
    assert not who(Scope.WRITE, workspace="w").covers(None)
    assert who(Scope.ADMIN, workspace="w").covers("v")


def test_refresh_keeps_who_one_is() -> None:
    """On a live connection only the expiry may change."""
    old = replace(who(Scope.CONNECT, account="a", workspace="w"), expires_at=1)
    newer = replace(old, expires_at=2)

    assert old.refreshed(newer) is newer
    for other in (
        replace(newer, account="b"),
        replace(newer, workspace=None),
        replace(newer, scopes=EVERYTHING),
    ):
        with pytest.raises(Forbidden, match="A refresh must keep the"):
            old.refreshed(other)


def test_attaching_needs_the_token_or_write_or_the_account() -> None:
    """An existing session takes those who opened it, who may write there, or whose it is."""
    secret = mint_session_secret()
    session = replace(SESSION, private=Private(token_hash=hash_secret(secret)))

    assert may_attach(session, None, secret)
    assert may_attach(session, who(Scope.WRITE, workspace="w"), "wrong")
    assert may_attach(session, who(Scope.CONNECT, account="ann"), None)
    assert not may_attach(session, None, "wrong")
    assert not may_attach(SESSION, None, secret)
    assert not may_attach(session, who(Scope.WRITE, workspace="v"), None)
    assert not may_attach(session, who(Scope.CONNECT, account="bob"), None)
    assert not may_attach(session, who(Scope.READ, account="ann"), None)
    assert not may_attach(replace(session, account=None), who(Scope.CONNECT), None)


def test_session_token_is_split_at_its_last_dot() -> None:
    """An id may hold dots; the secret never does."""
    secret = mint_session_secret()

    assert split_session_token(f"a.b:c.{secret}") == ("a.b:c", secret)
    for text in ("", ".", secret, f".{secret}", f"a.{secret}x", f"a/b.{secret}", f"a.{secret}\n"):
        assert split_session_token(text) is None


def test_session_secret_is_kept_as_a_hash() -> None:
    """What is kept of a secret tells whether it was shown, and nothing else."""
    one, other = mint_session_secret(), mint_session_secret()

    assert one != other
    assert one not in hash_secret(one)
    assert secret_matches(hash_secret(one), one)
    assert not secret_matches(hash_secret(one), other)
    assert not secret_matches(None, one)


async def test_admin_key_is_a_token_for_everything() -> None:
    """The admin key opens every door; a piece of it opens none."""
    auth = Authenticator(Settings(admin_key="K"))

    assert (await auth.authenticate("K", NOW_MS)).scopes == {Scope.ADMIN}
    for wrong in (None, "", "k", "KK", "K ", "é", "K" * (TOKEN_MAX + 1), "a.b.c"):
        with pytest.raises(Unauthorized) as caught:
            await auth.authenticate(wrong, NOW_MS)
        assert caught.value.detail == Unauthorized.title


async def test_api_key_is_known_by_its_hash() -> None:
    """Each API key has its own name, scopes, account and workspace."""
    keys = tuple(
        ApiKey(
            name=name,
            sha256=hashlib.sha256(name.encode()).hexdigest(),
            scopes=("read", "close"),
            workspace="w",
            account=name * 2,
        )
        for name in ("one", "two")
    )
    auth = Authenticator(Settings(api_keys=keys))

    assert await auth.authenticate("two", NOW_MS) == Principal(
        name="two",
        scopes=frozenset({Scope.READ, Scope.CLOSE}),
        account="twotwo",
        workspace="w",
    )
    with pytest.raises(Unauthorized):
        await auth.authenticate(keys[0].sha256, NOW_MS)


async def test_without_keys_nobody_comes_in() -> None:
    """No setting means no token, not every token."""
    auth = Authenticator(Settings())
    await auth.start(NOW_MS)

    for token in (None, "", "a", "a.b.c"):
        with pytest.raises(Unauthorized):
            await auth.authenticate(token, NOW_MS)


async def test_jwt_says_who_one_is() -> None:
    """Account, workspace and scopes come from the claims; scopes of others mean nothing here."""
    settings = Settings(jwt_key=SECRET)
    auth = Authenticator(settings)
    claims = Claims(
        account="ann",
        workspace="w",
        scopes=frozenset({"read", "openid"}),
        expires_at=NOW_MS + 1000,
    )
    token = create_token(settings, claims, NOW_MS)
    principal = await auth.authenticate(token, NOW_MS)

    assert principal == Principal(
        name="ann",
        scopes=frozenset({Scope.READ}),
        account="ann",
        workspace="w",
        expires_at=NOW_MS + 1000 + LEEWAY_MS,
    )
    assert principal.expires_at
    assert await auth.authenticate(token, principal.expires_at - 1) == principal
    with pytest.raises(TokenExpired):
        await auth.authenticate(token, principal.expires_at)


async def test_admin_of_one_workspace_is_nobody() -> None:
    """A token that is signed with both says two things at once: it is refused, not widened."""
    settings = Settings(jwt_key=SECRET)
    auth = Authenticator(settings)

    for scopes in ({"admin"}, {"admin", "read", "write"}):
        bound = Claims(account="a", workspace="w", scopes=frozenset(scopes), expires_at=None)
        with pytest.raises(Unauthorized, match="not for one workspace"):
            await auth.authenticate(create_token(settings, bound, NOW_MS), NOW_MS)
        free = replace(bound, workspace=None)
        token = create_token(settings, free, NOW_MS)
        assert (await auth.authenticate(token, NOW_MS)).has(Scope.ADMIN)


def test_account_is_a_person_of_its_workspace() -> None:
    """The same account elsewhere is somebody else's, unless the caller speaks for everywhere."""
    elsewhere, loose = replace(SESSION, workspace="v"), replace(SESSION, workspace=None)
    bound = who(Scope.CONNECT, account="ann", workspace="w")
    everywhere = who(Scope.CONNECT, account="ann")

    for caller, session, own in (
        (bound, SESSION, True),
        (bound, elsewhere, False),
        (bound, loose, False),
        (everywhere, SESSION, True),
        (everywhere, elsewhere, True),
        (everywhere, loose, True),
        (replace(bound, account="bob"), SESSION, False),
        (replace(bound, session="a"), elsewhere, False),
        (replace(bound, account=None, session="a"), SESSION, True),
        (Principal.of_session("a"), elsewhere, True),
        (who(Scope.CONNECT, workspace="w"), replace(SESSION, account=None), False),
    ):
        assert caller.owns(session) is own
        assert may_attach(session, caller, None) is own
    assert not bound.visibility().allows(elsewhere)
    assert not bound.visibility().allows(loose)
    assert everywhere.visibility().allows(elsewhere)


def test_gateways_that_start_at_once_agree_on_one_admin_key(tmp_path: Path) -> None:
    """The made admin key is one, stays, and is nobody else's to read."""
    folder = tmp_path / "new" / "data"
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(kept_admin_key, [folder] * 8))

    assert keys == {kept_admin_key(folder)}
    assert len(keys.pop()) == 43
    assert [path.name for path in folder.iterdir()] == ["admin_key"]
    assert stat.S_IMODE((folder / "admin_key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_empty_admin_key_file_is_refused(tmp_path: Path) -> None:
    """A key of nothing is no key."""
    (tmp_path / "admin_key").write_text("\n")

    with pytest.raises(SettingsError, match="is empty"):
        kept_admin_key(tmp_path)


async def test_many_tokens_at_once_do_not_disturb_each_other() -> None:
    """Authentication keeps nothing between callers."""
    settings = Settings(jwt_key=SECRET, admin_key="K")
    auth = Authenticator(settings)
    tokens = [
        create_token(
            settings,
            Claims(account=f"a{n}", workspace=None, scopes=frozenset(), expires_at=None),
            NOW_MS,
        )
        for n in range(50)
    ]
    found = await asyncio.gather(*(auth.authenticate(token, NOW_MS) for token in tokens))

    assert [principal.account for principal in found] == [f"a{n}" for n in range(50)]
