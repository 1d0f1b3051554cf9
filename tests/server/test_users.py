"""Users: logging in with a password, and the file that says who may."""

import asyncio
import json
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Literal

import pytest
from argon2 import PasswordHasher

from gateway.auth.passwords import (
    PASSWORD_MAX,
    REMEMBERED_MAX,
    REMEMBERED_MS,
    THREADS,
    WAITING_MAX,
)
from gateway.auth.principals import Scope, admin
from gateway.auth.users import Users
from gateway.core.errors import Invalid, NotFound, Overloaded, Unauthorized
from gateway.settings import SettingsError

NOW_MS = 1_800_000_000_000


class Counting(PasswordHasher):
    """Real argon2 of the least cost, which counts how often it ran and how many at a time."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified = self.running = self.most = 0
        self._lock = Lock()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        """Verify, and count."""
        with self._lock:
            self.verified += 1
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            return super().verify(hash, password)
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture
def hasher() -> Counting:
    """A cheap hasher."""
    return Counting()


@pytest.fixture
def users(tmp_path: Path, hasher: Counting) -> Iterator[Users]:
    """Users of a file with *ann* in it."""
    users = Users(tmp_path / "users.json", hasher=hasher)
    users.add("ann", "secret", scopes=[Scope.CONNECT, Scope.READ], workspace="w")
    yield users
    users.close()


async def wrong(users: Users, name: str, password: str, now_ms: int = NOW_MS) -> Unauthorized:
    """The refusal of a login."""
    with pytest.raises(Unauthorized) as caught:
        await users.verify(name, password, now_ms)
    return caught.value


async def test_right_password_says_who_one_is(users: Users) -> None:
    """A login has the scopes and the workspace of the file; the name is the account."""
    principal = await users.verify("ann", "secret", NOW_MS)

    assert (principal.name, principal.account, principal.workspace) == ("ann", "ann", "w")
    assert principal.scopes == {Scope.CONNECT, Scope.READ}
    users.add("bob", "secret", account="robert")
    assert (await users.verify("bob", "secret", NOW_MS)).account == "robert"


async def test_unknown_user_and_wrong_password_look_the_same(
    users: Users, hasher: Counting
) -> None:
    """The same answer after the same work: nobody learns which names exist."""
    one = await wrong(users, "ann", "wrong")
    assert hasher.verified == 1
    other = await wrong(users, "bob", "wrong")
    assert hasher.verified == 2

    assert (one.detail, one.code, one.extra) == (other.detail, other.code, other.extra)


@pytest.mark.parametrize(
    "name,password",
    [
        ("ann", ""),
        ("", "secret"),
        ("", ""),
        ("Ann", "secret"),
        ("ann", "secret "),
        ("ann", "x" * (PASSWORD_MAX + 1)),
        ("ann", "secret\x00"),
        ("ann\x00", "secret"),
        ("ann", "\ud800"),
        ("\ud800", "secret"),
        ("admin", ""),
        ("admin", "K"),
    ],
)
async def test_anything_else_is_refused(users: Users, name: str, password: str) -> None:
    """Odd names and passwords are wrong ones, not failures."""
    assert (await wrong(users, name, password)).code == "unauthorized"


async def test_verified_password_is_remembered_for_a_minute(users: Users, hasher: Counting) -> None:
    """Clients that send their password with every request cost argon2 once a minute."""
    for now_ms in (NOW_MS, NOW_MS + 1, NOW_MS + REMEMBERED_MS - 1):
        await users.verify("ann", "secret", now_ms)
    assert hasher.verified == 1
    await users.verify("ann", "secret", NOW_MS + REMEMBERED_MS)
    assert hasher.verified == 2
    await wrong(users, "ann", "wrong")
    await wrong(users, "ann", "wrong")
    assert hasher.verified == 4


async def test_new_password_ends_what_was_remembered(users: Users) -> None:
    """After a change the old password is wrong at once, in other processes too."""
    await users.verify("ann", "secret", NOW_MS)
    users.add("ann", "new", scopes=[Scope.READ])

    await wrong(users, "ann", "secret", NOW_MS + 1)
    assert (await users.verify("ann", "new", NOW_MS + 1)).workspace is None
    users.remove("ann")
    await wrong(users, "ann", "new", NOW_MS + 2)


async def test_same_password_of_another_is_not_remembered(users: Users, hasher: Counting) -> None:
    """What was remembered for one is nothing for another with the same password."""
    users.add("bob", "secret")
    await users.verify("ann", "secret", NOW_MS)
    await users.verify("bob", "secret", NOW_MS)

    assert hasher.verified == 2


async def test_memory_of_passwords_is_bounded(users: Users, hasher: Counting) -> None:
    """However many log in, a bounded number of them is remembered."""
    path, entry = users._path, json.loads(users._path.read_text())["ann"]  # noqa: SLF001
    path.write_text(json.dumps({f"u{n}": entry for n in range(3)}))
    memory = users.passwords._remembered_until_ms  # noqa: SLF001
    memory.update({n.to_bytes(8, "big"): NOW_MS for n in range(REMEMBERED_MAX)})

    await users.verify("u0", "secret", NOW_MS)

    assert len(memory) == REMEMBERED_MAX
    assert hasher.verified == 1


async def test_crowd_is_hashed_two_at_a_time(users: Users, hasher: Counting) -> None:
    """Logins at once take two threads; who sends what was just verified takes none."""
    await asyncio.gather(*(users.verify("ann", "secret", NOW_MS) for _ in range(WAITING_MAX)))
    assert hasher.verified <= THREADS

    await asyncio.gather(
        *(wrong(users, f"u{n}", "wrong") for n in range(WAITING_MAX)), return_exceptions=True
    )
    assert hasher.most <= THREADS


async def test_too_many_logins_are_told_to_come_back(users: Users) -> None:
    """The queue for hashing is bounded; who finds it full hears so."""
    results = await asyncio.gather(
        *(users.verify(f"u{n}", "wrong", NOW_MS) for n in range(WAITING_MAX + 5)),
        return_exceptions=True,
    )

    assert sum(isinstance(result, Overloaded) for result in results) == 5
    assert sum(isinstance(result, Unauthorized) for result in results) == WAITING_MAX
    assert (await users.verify("ann", "secret", NOW_MS)).name == "ann"


async def test_cancelled_login_leaves_its_place(users: Users) -> None:
    """A client that hangs up takes no place in the queue with it."""
    logins = [
        asyncio.create_task(users.verify(f"u{n}", "wrong", NOW_MS)) for n in range(WAITING_MAX)
    ]
    await asyncio.sleep(0)
    for login in logins:
        login.cancel()
    await asyncio.gather(*logins, return_exceptions=True)

    assert (await users.verify("ann", "secret", NOW_MS)).name == "ann"


async def test_admin_key_is_the_password_of_admin(tmp_path: Path, hasher: Counting) -> None:
    """Whoever has the admin key can log in where only passwords are taken."""
    users = Users(tmp_path / "users.json", admin_key="K", hasher=hasher)
    assert await users.verify("admin", "K", NOW_MS) == admin()
    await wrong(users, "admin", "k")
    await wrong(users, "ann", "K")

    users.add("admin", "other", scopes=[Scope.READ])
    assert (await users.verify("admin", "other", NOW_MS)).scopes == {Scope.READ}
    assert await users.verify("admin", "K", NOW_MS) == admin()
    users.close()


async def test_change_by_another_process_is_seen(users: Users, tmp_path: Path) -> None:
    """What the command line changes is true for the running gateway at the next login."""
    other = Users(tmp_path / "users.json", hasher=Counting())
    other.add("bob", "secret")

    assert (await users.verify("bob", "secret", NOW_MS)).name == "bob"
    other.remove("bob")
    await wrong(users, "bob", "secret")
    (tmp_path / "users.json").unlink()
    await wrong(users, "ann", "secret")
    other.close()


async def test_admin_of_one_workspace_does_not_log_in(
    users: Users, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A user with ``admin`` and a workspace is left out, and told in the log; others log in."""
    with pytest.raises(Invalid, match="not for one workspace"):
        users.add("bob", "secret", scopes=[Scope.ADMIN, Scope.READ], workspace="w")
    users.add("bob", "secret", scopes=[Scope.ADMIN, Scope.READ])
    assert (await users.verify("bob", "secret", NOW_MS)).has(Scope.ADMIN)
    path = tmp_path / "users.json"
    known = json.loads(path.read_text())
    known["bob"]["workspace"] = "w"
    path.write_text(json.dumps(known))

    await wrong(users, "bob", "secret")
    told = [record for record in caplog.records if "is ignored" in record.message]
    assert [vars(record)["account"] for record in told] == ["bob"]
    assert (await users.verify("ann", "secret", NOW_MS)).name == "ann"
    assert (list(users.list()), list(users.read_all())) == (["ann"], ["ann", "bob"])
    users.add("bob", "secret", scopes=[Scope.READ], workspace="w")
    assert (await users.verify("bob", "secret", NOW_MS)).workspace == "w"


@pytest.mark.parametrize("name", [".", ".."])
def test_name_that_clients_resolve_is_no_name(users: Users, name: str) -> None:
    """A user's name is an id in paths, where these two mean something else."""
    with pytest.raises(Invalid):
        users.add(name, "secret")


async def test_broken_file_leaves_the_users_as_they_were(
    users: Users, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A slip of an editor locks nobody out of a running gateway, and is told once."""
    await users.verify("ann", "secret", NOW_MS)
    (tmp_path / "users.json").write_text('{"ann":')

    for _ in range(3):
        assert (await users.verify("ann", "secret", NOW_MS)).name == "ann"
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"ann": {}}',
        '{"ann": {"hash": "plain"}}',
        '{"ann": {"hash": "$argon2", "scopes": ["root"]}}',
        '{"ann": {"hash": "$argon2", "is_admin": true}}',
        '{"": {"hash": "$argon2"}}',
        "\xff",
    ],
)
def test_broken_file_stops_a_start_and_a_command(tmp_path: Path, text: str) -> None:
    """A file that cannot be read is refused with its place, and never written over."""
    path = tmp_path / "users.json"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(SettingsError, match="users_file: cannot read"):
        Users(path)
    assert path.read_bytes() == text.encode("latin-1")


async def test_hash_that_argon2_cannot_read_is_a_wrong_password(tmp_path: Path) -> None:
    """A damaged hash lets nobody in and breaks nothing."""
    path = tmp_path / "users.json"
    path.write_text('{"ann": {"hash": "$argon2id$what"}}')
    users = Users(path, hasher=Counting())

    await wrong(users, "ann", "secret")
    users.close()


@pytest.mark.parametrize(
    "name,password",
    [("", "x"), ("x" * 257, "x"), ("a\x00", "x"), ("a", ""), ("a", "x" * 1025), ("a", "\ud800")],
)
def test_user_that_could_not_log_in_is_not_added(users: Users, name: str, password: str) -> None:
    """Names and passwords are checked when they are given."""
    with pytest.raises(Invalid):
        users.add(name, password)
    assert list(users.list()) == ["ann"]


def test_listing_shows_no_password(users: Users) -> None:
    """People are listed by name, with what they may do."""
    users.add("abe", "secret", account="a")

    assert list(users.list()) == ["abe", "ann"]
    assert users.list()["ann"].scopes == (Scope.CONNECT, Scope.READ)
    assert "secret" not in str(users.list())
    users.remove("abe")
    with pytest.raises(NotFound):
        users.remove("abe")


def test_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each of many changes at the same moment is in the file; it is ours alone, and whole."""
    path = tmp_path / "new" / "users.json"
    everybody = [Users(path, hasher=Counting()) for _ in range(8)]
    names = [f"u{n}" for n in range(40)]
    with ThreadPoolExecutor(8) as threads:
        done = [
            threads.submit(everybody[n % 8].add, name, "secret") for n, name in enumerate(names)
        ]
        while not all(future.done() for future in done):
            everybody[0].list()  # a reader never meets half a file
    for users in everybody:
        users.close()

    assert list(everybody[0].list()) == sorted(names)
    assert [found.name for found in path.parent.iterdir()] == ["users.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
