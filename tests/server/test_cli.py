"""The command line without a gateway: usage, settings, tokens, users, words, logs."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.options import Reach, seconds
from gateway.cli.output import flattened, shown_time, span
from gateway.cli.serving import greeting
from gateway.core.public import rfc3339
from gateway.logs.formats import escaped
from gateway.settings import TABLE, load
from tests.server.command import run

SECRET = "a secret of more than thirty-two bytes"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which nobody has set anything."""
    for name in ("XDG_DATA_HOME", "GATEWAY_URL", "GATEWAY_TOKEN", "GATEWAY_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let stdin hold *text*."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


# --- usage


def test_help_of_every_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command has help, and all of it ends with what exit codes mean."""
    for command in (
        *("serve", "sessions", "show", "watch", "close", "cancel", "kick", "config", "audit"),
        *("history", "nodes", "top", "messages", "messages send", "ping", "completion"),
        *("token create", "token verify", "user add", "user list", "user remove", "token", "user"),
    ):
        ran = run(capsys, *command.split(), "--help")

        assert ran.code == 0
        assert "Usage: gateway" in ran.out
        assert "Exit codes: 0 done" in ran.out


def test_serve_has_a_flag_for_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """Every row of the table is a flag of ``serve``, with its default and what it means."""
    said = " ".join(run(capsys, "serve", "--help").out.split())

    for row in TABLE.values():
        assert row.flag in said
        assert " ".join(row.description.split()) in said
    assert "[default: 8080]" in said
    assert "--port INTEGER" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("serve", "--prot", "1"),
        ("serve", "--port"),
        ("show",),
        ("close", "x", "--after", "soon"),
        ("sessions", "--label", "nonsense"),
        ("sessions", "--state", "closed"),
        ("token", "create", "--scope", "everything"),
        ("history", "--kind", "everything"),
        ("history", "--since", "soon"),
        ("history", "--since", "9999999999999d"),
        ("messages", "send"),
        ("completion", "tcsh"),
        ("audit", "--for", "-1"),
    ],
)
def test_wrong_usage_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """What cannot be understood exits with 2 and a line on stderr, and does nothing."""
    ran = run(capsys, *arguments)

    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("gateway: ")


def test_all_problems_of_settings_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Bad settings keep the gateway from starting, with exit code 2 and a line for each."""
    ran = run(capsys, "serve", "--port", "many", "--host", "0.0.0.0", "--pong-s", "99")  # noqa: S104

    assert ran.code == 2
    assert len(ran.err.splitlines()) == 3
    assert "--port" in ran.err
    assert "0.0.0.0 is open to others" in ran.err


def test_gateway_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a gateway a command fails with its error's code, and no traceback."""
    for command in (["sessions"], ["watch"], ["audit"], ["nodes"], ["history"], ["close", "x"]):
        ran = run(capsys, *command, "--url", "http://127.0.0.1:1")

        assert ran.code == 1
        assert ran.err.startswith("gateway: unavailable: ")
        assert len(ran.err.splitlines()) == 1


# --- settings


def test_config_says_where_each_value_came_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Flags, variables, the file and defaults are told apart, and secrets are masked."""
    file = tmp_path / "gateway.toml"
    file.write_text(f'linger_ms = 5\njwt_key = "{SECRET}"\n')
    monkeypatch.setenv("GATEWAY_LOG_LEVEL", "error")
    arguments = ("config", "--config", str(file), "--port", "0")

    rows = {row[0]: row[1:] for row in run(capsys, *arguments).rows}
    document = run(capsys, *arguments, "--json").json

    assert rows.keys() == document.keys() == TABLE.keys()
    assert rows["port"] == ["0", "flag"]
    assert rows["log_level"] == ["error", "environment"]
    assert rows["linger_ms"] == ["5", "file"]
    assert rows["host"] == ["127.0.0.1", "default"]
    assert document["port"] == {"value": 0, "source": "flag"}
    assert document["redis_url"] == {"value": None, "source": "default"}
    assert document["jwt_key"]["value"] == "********"
    assert SECRET not in run(capsys, *arguments).out


def test_config_check_says_what_is_wrong_and_where_it_was_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Settings with which no gateway starts exit with 2; each line has setting and source."""
    file = tmp_path / "gateway.toml"
    file.write_text('port = "many"\npong_s = 20\nlinger_ms = 5\n')
    monkeypatch.setenv("GATEWAY_HOST", "0.0.0.0")  # noqa: S104 - refused without auth
    arguments = ("config", "--check", "--config", str(file), "--workers", "0")

    bad = run(capsys, *arguments)

    assert (bad.code, bad.out) == (2, "")
    told = dict(line.removeprefix("gateway: ").split(": ", 1) for line in bad.err.splitlines())
    assert told.keys() == {f"port in {file}", "--workers", "host", "pong_s"}
    assert told["host"].endswith("(set: GATEWAY_HOST)")
    assert told["pong_s"].endswith(f"(set: pong_s in {file})")


@pytest.mark.parametrize("flag", ["--tls-cert", "--users-file", "--jwt-key"])
def test_config_check_reads_what_the_settings_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, flag: str
) -> None:
    """A file that a start could not use is found by the check, and told in a line."""
    file = tmp_path / "wrong.pem"
    file.write_text("-----BEGIN nothing")
    more = ("--tls-key", str(file)) if flag == "--tls-cert" else ()

    bad = run(capsys, "config", "--check", flag, str(file), *more)

    assert (bad.code, bad.out, bad.err.count("\n")) == (2, "", 1)
    assert bad.err.startswith(f"gateway: {flag[2:].replace('-', '_')}")


def test_config_default_is_a_file_with_every_setting(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The file has each setting with its meaning and default, and changes nothing."""
    file = tmp_path / "gateway.toml"
    file.write_text(run(capsys, "config", "--default").out)

    for row in TABLE.values():
        assert re.search(rf"^(# )?{row.name} =", file.read_text(), re.MULTILINE)
        assert f"# {row.description}.\n" in file.read_text()
    assert run(capsys, "config", "--check", "--config", str(file)).code == 0
    assert load({}, {}, file)[0] == load({}, {})[0]


def test_completion_is_a_script_with_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The shell that is to complete commands can read what it gets."""
    script = run(capsys, "completion", "bash").out

    subprocess.run(["bash", "-n"], input=script, text=True, check=True)  # noqa: S607
    assert " messages " in script
    assert " --redis-url " in script


@pytest.mark.parametrize("command", ["token create", "token verify", "user add", "user list"])
def test_help_has_only_the_settings_that_matter(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Commands about tokens and people do not show the flags of a server."""
    said = run(capsys, *command.split(), "--help").out

    assert "--port" not in said
    assert "--config" in said
    assert ("--jwt-key" in said) == command.startswith("token")
    assert ("--users-file" in said) == command.startswith("user")


# --- tokens


def test_token_is_made_and_good_for_what_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A created token is all of stdout, and ``verify`` says what it was made for."""
    key = ("--jwt-key", SECRET)

    made = run(
        capsys, *("token", "create", "--scope", "read", "--scope", "close", "--account", "ann"),
        *("--workspace", "w", "--expires", "2h", *key),
    )  # fmt: skip
    typed(monkeypatch, made.out)
    told = run(capsys, "token", "verify", "--json", *key).json

    assert made.out.count(".") == 2
    assert made.err == ""
    assert told["scopes"] == ["close", "read"]
    assert (told["account"], told["workspace"]) == ("ann", "w")
    assert run(capsys, "token", "verify", made.out.strip(), *key).rows[0] == ["name", "ann"]


def test_token_of_another_key_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A token that these settings do not believe exits with 1 and says so."""
    token = run(capsys, "token", "create", "--jwt-key", SECRET).out.strip()
    expired = run(capsys, "token", "create", "--jwt-key", SECRET, "--expires", "0", "--json").json

    ran = run(capsys, "token", "verify", token, "--jwt-key", SECRET[::-1])

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("gateway: unauthorized: ")
    assert expired.keys() == {"token", "expires_at"}
    assert run(capsys, "token", "create").code == 2


def test_api_key_is_told_once_and_kept_as_a_hash(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What an API key's making tells on stderr, put into the settings, makes the key good."""
    made = run(capsys, "token", "create", "--api-key", 'C"I', "--scope", "read", "--workspace", "w")
    file = tmp_path / "gateway.toml"
    file.write_text(made.err.partition("\n")[2])

    told = run(capsys, "token", "verify", made.out.strip(), "--config", str(file), "--json").json

    assert told == {"name": 'C"I', "scopes": ["read"], "workspace": "w"}
    assert made.out.strip() not in made.err


def test_admin_of_one_workspace_is_not_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither a token nor a key nor a user is made with ``admin`` and a workspace."""
    wanted = ("--scope", "read", "--scope", "admin", "--workspace", "w")
    typed(monkeypatch, "correct horse\n")
    users = tmp_path / "users.json"
    for command in (
        ("token", "create", *wanted, "--jwt-key", SECRET),
        ("token", "create", "--api-key", "CI", *wanted),
        ("user", "add", "ann", *wanted, "--users-file", str(users)),
    ):
        ran = run(capsys, *command)
        assert (ran.code, ran.out) == (1, "")
        assert "The scope admin is not for one workspace" in ran.err
    assert not users.exists()


# --- users


def test_users_are_added_listed_and_removed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The users' file follows the commands; passwords come from stdin and are never shown."""
    file = ("--users-file", str(tmp_path / "users.json"))
    typed(monkeypatch, "correct horse\n")

    added = run(capsys, "user", "add", "ann", "--scope", "read", "--workspace", "w", *file)

    assert (added.code, added.out) == (0, "ann is added\n")
    assert run(capsys, "user", "list", *file).rows == [["ann", "read", "w", "ann"]]
    listed = run(capsys, "user", "list", "--json", *file)
    assert listed.lines == [{"name": "ann", "scopes": ["read"], "workspace": "w"}]
    assert "argon2" not in listed.out
    assert "correct horse" not in (tmp_path / "users.json").read_text()

    assert run(capsys, "user", "remove", "ann", *file).code == 0
    gone = run(capsys, "user", "remove", "ann", *file)
    assert (gone.code, gone.err[:19]) == (3, "gateway: not_found:")


def test_user_that_cannot_be_kept_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An empty password and a file that cannot be written fail with 1 and a line."""
    typed(monkeypatch, "\n")
    assert run(capsys, "user", "add", "ann").code == 1

    typed(monkeypatch, "correct horse\n")
    (tmp_path / "file").touch()
    ran = run(capsys, "user", "add", "ann", "--users-file", str(tmp_path / "file" / "users.json"))
    assert ran.code != 0
    assert len(ran.err.splitlines()) == 1


# --- words


@pytest.mark.parametrize(
    "text, length_s",
    [("90", 90), ("1.5", 1.5), ("30s", 30), ("2m", 120), ("1h30m", 5400), ("500ms", 0.5),
     ("1d", 86_400), ("0", 0)],
)  # fmt: skip
def test_duration_is_read_in_its_unit(text: str, length_s: float) -> None:
    """A duration is plain seconds, or numbers with units."""
    assert seconds(text) == pytest.approx(length_s)


@pytest.mark.parametrize("text", ["", "s", "-1", "1 s", "1w", "1e3", "nan", "30s?", "٣s"])
def test_nonsense_is_no_duration(text: str) -> None:
    """What is no duration is refused with an example of one."""
    with pytest.raises(ValueError, match="such as 30s"):
        seconds(text)


def test_text_of_clients_cannot_steer_a_terminal() -> None:
    """Control characters, line ends and text that runs backwards are shown, not obeyed."""
    assert escaped("A\x1b[31m\r\n\t\x9b\u202e") == "A\\x1b[31m\\r\\n\\t\\x9b\\u202e"
    assert escaped("Ünï 日本 🎉") == "Ünï 日本 🎉"
    assert escaped("\ud800") == "\\ud800"
    assert escaped(None) == ""


def test_value_is_laid_out_flat_by_its_paths() -> None:
    """A session's inner values have names like ``connection.address``."""
    value = {"id": "s", "streams": [{"key": "a"}], "labels": {}, "on": True}

    assert dict(flattened(value)) == {
        "id": "s",
        "streams.0.key": "a",
        "labels": "{}",
        "on": "true",
    }


def test_times_are_distances_for_people_and_exact_for_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a terminal a time is how far away it is; elsewhere it stays as the API says it."""
    at = rfc3339(1_000_000)
    assert shown_time(at, 0) == at
    assert shown_time(None, 0) == ""

    monkeypatch.setattr("gateway.cli.output.for_people", lambda: True)
    assert shown_time(at, 1_000_000 + 90_000) == "1m 30s ago"
    assert shown_time(at, 1_000_000 - 7_200_000) == "in 2h"
    assert span(999) == "0s"


def test_kept_admin_key_is_shown_to_this_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key that a gateway made for itself is never sent to another machine."""
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path))
    assert Reach().shown_token() is None
    (tmp_path / "admin_key").write_text("K\n")

    assert Reach().shown_token() == "K"
    assert Reach(url="http://[::1]:1").shown_token() == "K"
    assert Reach(token="other").shown_token() == "other"
    assert Reach(url="https://gateway.example").shown_token() is None
    assert Reach(url="http://127.0.0.1.example").shown_token() is None


def test_greeting_tells_where_the_key_is(tmp_path: Path) -> None:
    """A gateway without auth says that it is alone, where its key is, and how to watch it."""
    settings, _ = load({"data_dir": str(tmp_path / "d d"), "host": "::1", "port": 9}, {})

    first, alone, key = greeting(settings, has_auth=False)

    assert first.endswith("is ready at http://[::1]:9")
    assert "loopback only" in alone
    assert f"in {tmp_path / 'd d' / 'admin_key'}." in key
    assert (
        f"gateway watch --url http://[::1]:9 --token \"$(cat '{tmp_path}/d d/admin_key')\"" in key
    )
    assert greeting(settings, has_auth=True) == [first]
    everywhere, _ = load({"host": "0.0.0.0", "admin_key": "K"}, {})  # noqa: S104
    assert "http://127.0.0.1:8080 (on all addresses)" in greeting(everywhere, has_auth=True)[0]
