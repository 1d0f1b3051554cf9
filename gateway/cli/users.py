"""``gateway user``: the file of people who log in with a password; running gateways follow it."""

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from cyclopts import Parameter
from msgspec import to_builtins

from gateway.auth.principals import BOUND_ADMIN, Scope, is_bound_admin
from gateway.auth.users import Users
from gateway.cli.options import Account, Json, Scopes, UserFlags, Workspace, read_settings
from gateway.cli.output import put, put_json, put_table
from gateway.core.errors import Invalid
from gateway.logs.formats import escaped

UserName = Annotated[str, Parameter(metavar="NAME", help="The name to log in with.")]

_HEADERS: Final = ("NAME", "SCOPES", "WORKSPACE", "ACCOUNT")


@contextmanager
def _people(flags: UserFlags | None) -> Iterator[Users]:
    settings, _ = read_settings(flags)
    users = Users(settings.users_path)
    try:
        yield users
    except OSError as error:
        raise Invalid(f"{settings.users_path}: {error.strerror}") from error
    finally:
        users.close()


def add(
    name: UserName,
    /,
    *,
    scope: Scopes = (),
    account: Account = None,
    workspace: Workspace = None,
    flags: UserFlags | None = None,
) -> None:
    """Add somebody, or replace who has the name. The password is asked for, or read from stdin.

    Without an account the name is it.
    """
    if is_bound_admin(scope, workspace):
        raise Invalid(BOUND_ADMIN)
    with _people(flags) as users:
        users.add(
            name,
            _password(),
            scopes=map(Scope, scope),
            workspace=workspace,
            account=account,
        )
    put(f"{escaped(name)} is added")


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise Invalid("The two passwords differ.")
    return password


def list_users(
    *,
    json: Json = False,
    flags: UserFlags | None = None,
) -> None:
    """List everybody; hashes are not shown."""
    with _people(flags) as users:
        known = users.read_all()
    if json:
        for name, user in known.items():
            put_json({"name": name, **{k: v for k, v in to_builtins(user).items() if k != "hash"}})
        return
    put_table(
        _HEADERS,
        [
            (name, " ".join(user.scopes), user.workspace, user.account or name)
            for name, user in known.items()
        ],
    )


def remove(
    name: UserName,
    /,
    *,
    flags: UserFlags | None = None,
) -> None:
    """Remove somebody; what they are doing goes on, logging in does not."""
    with _people(flags) as users:
        users.remove(name)
    put(f"{escaped(name)} is removed")
