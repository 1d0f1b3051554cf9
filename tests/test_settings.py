"""Settings: one table, three places to set them, all problems told at once."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import rich.pretty

from gateway.settings import (
    SECRETS,
    TABLE,
    ApiKey,
    Settings,
    SettingsError,
    Source,
    load,
    parse_origin,
    settings_table,
)

SHA = "0" * 64


def problems(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> tuple[str, ...]:
    """What is wrong with these settings."""
    with pytest.raises(SettingsError) as caught:
        load(flags or {}, environ or {}, file)
    return caught.value.problems


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """A file that sets three things."""
    path = tmp_path / "gateway.toml"
    path.write_text('port = 1\nlinger_ms = 2\nlog_level = "error"\n')
    return path


def test_nothing_given_is_a_loopback_server_of_defaults() -> None:
    """Without any settings the gateway starts, alone on its machine."""
    settings, sources = load({}, {"HOME": "/nowhere"})

    assert settings.is_loopback
    assert not settings.has_auth
    assert settings.data_dir == Path("/nowhere/.local/share/session-gateway")
    assert settings.users_path == settings.data_dir / "users.json"
    assert set(sources.values()) == {Source.DEFAULT}


def test_flags_win_over_variables_over_file_over_defaults(toml: Path) -> None:
    """Of a setting given in several places the nearest wins, and its source is told."""
    settings, sources = load(
        {"port": 3, "host": None}, {"GATEWAY_PORT": "4", "GATEWAY_LINGER_MS": "5"}, toml
    )

    assert (settings.port, settings.linger_ms, settings.log_level) == (3, 5, "error")
    assert sources["port"] is Source.FLAG
    assert sources["linger_ms"] is Source.ENVIRONMENT
    assert sources["log_level"] is Source.FILE
    assert sources["host"] is Source.DEFAULT


def test_variable_that_names_a_file_is_followed(toml: Path) -> None:
    """GATEWAY_CONFIG names the file when no flag does; a flag's file wins."""
    assert load({}, {"GATEWAY_CONFIG": str(toml)})[0].port == 1
    assert "No such file" in problems({}, {"GATEWAY_CONFIG": str(toml)}, toml.parent / "other")[0]


def test_data_dir_follows_the_environment() -> None:
    """XDG_DATA_HOME says where data is kept by default."""
    assert load({}, {"XDG_DATA_HOME": "/d"})[0].data_dir == Path("/d/session-gateway")
    assert load({"data_dir": "~/x"}, {})[0].data_dir == Path.home() / "x"


def test_text_becomes_what_the_table_says(tmp_path: Path) -> None:
    """Lists have commas, tables are JSON, numbers are numbers, and an empty text is not given."""
    keys = f'[{{"name": "ci", "sha256": "{SHA}", "scopes": ["read"]}}]'
    settings, _ = load(
        {},
        {
            "GATEWAY_ALLOWED_ORIGINS": "https://a.example, https://b.example,",
            "GATEWAY_API_KEYS": keys,
            "GATEWAY_HEARTBEAT_S": "7.5",
            "GATEWAY_PARTITIONS": "4",
            "GATEWAY_USERS_FILE": str(tmp_path / "u"),
            "GATEWAY_ADMIN_KEY": "",
        },
    )

    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.api_keys == (ApiKey(name="ci", sha256=SHA, scopes=("read",)),)
    assert (settings.heartbeat_s, settings.partitions) == (7.5, 4)
    assert settings.users_file == tmp_path / "u"
    assert settings.admin_key is None


def test_text_null_is_a_text() -> None:
    """A key spelled null is that key, not the absence of one."""
    assert load({"admin_key": "null"}, {})[0].admin_key == "null"


def test_tables_in_the_file_are_api_keys(tmp_path: Path) -> None:
    """An API key is a table of the file."""
    path = tmp_path / "g.toml"
    path.write_text(f'[[api_keys]]\nname="a"\nsha256="{SHA}"\nscopes=["write"]\nworkspace="w"\n')

    assert load({}, {}, path)[0].api_keys[0].workspace == "w"


def test_unknown_names_are_refused_with_a_suggestion(tmp_path: Path) -> None:
    """A misspelled setting is an error in the spelling of its place, and says what was meant."""
    path = tmp_path / "g.toml"
    path.write_text('redis-url = "x"\n[server]\nport = 1\n')

    found = problems({"prot": 1}, {"GATEWAY_REDISURL": "x"}, path)

    assert "redis-url: there is no such setting; did you mean redis_url?" in found
    assert any(text.startswith("server: there is no such setting") for text in found)
    assert "--prot: there is no such setting; did you mean --port?" in found
    assert "GATEWAY_REDISURL: there is no such setting; did you mean GATEWAY_REDIS_URL?" in found
    assert len(found) == 4


def test_variables_of_others_are_left_alone() -> None:
    """What Kubernetes sets for a Service named gateway, and what our commands read, is no error."""
    settings, _ = load(
        {},
        {
            "GATEWAY_PORT": "tcp://10.0.0.1:80",
            "GATEWAY_PORT_80_TCP": "tcp://10.0.0.1:80",
            "GATEWAY_PORT_80_TCP_ADDR": "10.0.0.1",
            "GATEWAY_SERVICE_HOST": "10.0.0.1",
            "GATEWAY_SERVICE_PORT_HTTP": "80",
            "GATEWAY_URL": "http://localhost",
            "GATEWAY_TOKEN": "t",
            "GATEWAYS": "2",
        },
    )

    assert settings.port == 8080


def test_all_problems_are_told_at_once() -> None:
    """Whoever sets five things wrong hears of five."""
    found = problems(
        {"tls_cert": "/nowhere", "pong_s": 15}, {"GATEWAY_PORT": "x", "GATEWAY_HOSTT": "x"}
    )

    assert len(found) == 5


@pytest.mark.parametrize(
    "flags,reason",
    [
        ({"port": 65536}, "--port: Expected `int` <= 65535"),
        ({"port": True}, "--port: Expected `int`"),
        ({"port": 0.5}, "--port: Expected `int`"),
        ({"linger_ms": -1}, "--linger-ms: Expected `int` >= 0"),
        ({"heartbeat_s": "nan", "pong_s": 1}, "--heartbeat-s:"),
        ({"node_name": "a:b"}, "--node-name: Expected `str` matching"),
        ({"key_prefix": "{a}"}, "--key-prefix: Expected `str` matching"),
        ({"log_format": "xml"}, "--log-format: Invalid enum value 'xml'"),
        ({"admin_key": "two words"}, "--admin-key: Expected `str` matching"),
        ({"data_dir": 5}, "--data-dir: Expected a path"),
        ({"api_keys": "[{"}, "--api-keys: is not JSON"),
        ({"api_keys": [{"name": "a", "sha256": "x", "scopes": []}]}, "--api-keys: Expected `str`"),
        (
            {"api_keys": [{"name": "a", "sha256": SHA, "scopes": ["root"]}]},
            "--api-keys: Invalid enum value 'root'",
        ),
        ({"host": "0.0.0.0"}, "host: 0.0.0.0 is open to others"),  # noqa: S104
        ({"host": "::"}, "host: :: is open to others"),
        ({"host": "gateway.example"}, "host: gateway.example is open to others"),
        ({"tls_key": __file__}, "tls_cert, tls_key: one needs the other"),
        ({"tls_key": "/no", "tls_cert": __file__}, "tls_key: there is no file /no"),
        ({"jwt_key": "s" * 32, "jwks": __file__}, "jwt_key, jwks: set one of them"),
        ({"jwt_issuer": "x"}, "jwt_issuer: does nothing without"),
        ({"jwt_audience": "x"}, "jwt_audience: does nothing without"),
        ({"jwt_algorithm": "RS256"}, "jwt_algorithm: does nothing without"),
        ({"jwt_key": "/no/key"}, "jwt_key: cannot read /no/key"),
        ({"jwt_key": "no.pem"}, "jwt_key: cannot read no.pem"),
        ({"jwks": "/no/jwks"}, "jwks: neither a file nor an https URL"),
        ({"jwks": "http://issuer.example/jwks"}, "jwks: neither a file nor an https URL"),
        ({"jwks": "ftp://127.0.0.1/jwks"}, "jwks: neither a file nor an https URL"),
        ({"jwks": "http://[::1/jwks"}, "jwks: neither a file nor an https URL"),
        ({"pong_s": 15}, "pong_s: must be less than heartbeat_s"),
        ({"redis_url": "http://x"}, "redis_url: must begin with"),
        ({"allowed_origins": ["*"]}, "allowed_origins: * is not"),
        ({"allowed_origins": ["https://a/"]}, "allowed_origins: https://a/ is not"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "trusted_proxies: 10.0.0.1/8 has host bits set"),
        ({"trusted_proxies": "lb"}, "trusted_proxies: 'lb' does not appear"),
        (
            {"api_keys": [{"name": "a", "sha256": d * 64, "scopes": []} for d in "01"]},
            "api_keys: two have the same name",
        ),
        (
            {"api_keys": [{"name": n, "sha256": SHA, "scopes": []} for n in "ab"]},
            "api_keys: two have the same sha256",
        ),
        (
            {"api_keys": [
                {"name": "a", "sha256": SHA, "scopes": ["read", "admin"], "workspace": "w"}
            ]},
            "api_keys: a: admin is not for one workspace; give it connect, read, write and close",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(flags: dict[str, Any], reason: str) -> None:
    """A value that is wrong, or contradicts another, is refused at the start with its reason."""
    found = problems(flags)

    assert len(found) == 1
    assert found[0].startswith(reason)


def test_a_wrong_value_is_not_blamed_twice() -> None:
    """A bad admin key on an open host is one problem: auth was meant to be there."""
    assert len(problems({"host": "::", "admin_key": "a b"})) == 1


@pytest.mark.parametrize("text", ["port = ", "\x00", "port = 1\nport = 2"])
def test_file_that_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    """A file that cannot be read is a problem that names it."""
    path = tmp_path / "g.toml"
    path.write_text(text)

    assert problems({}, {}, path)[0].startswith(f"{path}: ")


def test_secrets_are_masked_wherever_settings_are_shown(tmp_path: Path) -> None:
    """No way of showing settings shows a secret; what is none stays readable."""
    settings, _ = load(
        {
            "admin_key": "s3cret-a",
            "jwt_key": "s3cret-" * 6,
            "redis_url": "redis://user:s3cret-p@ss@host:1/2?password=s3cret",
            "api_keys": [{"name": "ci", "sha256": "5ec" + "0" * 61, "scopes": ["read"]}],
        },
        {},
    )
    shown = settings.shown()

    for text in (repr(settings), str(settings), rich.pretty.pretty_repr(settings), str(shown)):
        assert "s3cret" not in text
        assert "5ec0" not in text
    assert shown["redis_url"] == "redis://********@host:1/2?password=********"
    assert shown["api_keys"] == "ci"
    assert shown["admin_key"] == "********"
    key = tmp_path / "key.pem"
    key.write_text("x")
    assert load({"jwt_key": str(key)}, {})[0].shown()["jwt_key"] == str(key)


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_may_be_in_a_file(tmp_path: Path, name: str) -> None:
    """``<name>_file`` stands for the secret at each source, and shows it nowhere."""
    texts = {
        "redis_url": "redis://u:canary@127.0.0.1",
        "api_keys": f'[{{"name": "a", "sha256": "{SHA}", "scopes": ["read"]}}]',
    }
    path, toml = tmp_path / "secret", tmp_path / "gateway.toml"
    path.write_text(texts.get(name, "canary-of-the-files") + "\n")
    toml.write_text(f'{name}_file = "{path}"\n')
    file = f"{name}_file"
    for settings, sources in (
        load({file: str(path)}, {}),
        load({}, {f"GATEWAY_{file.upper()}": str(path)}),
        load({}, {}, toml),
    ):
        assert getattr(settings, name) not in (None, ())
        assert not str(getattr(settings, name)).endswith("\n")
        assert sources[name] is not Source.DEFAULT
        assert "canary" not in str(settings.shown())
    settings, sources = load({name: texts.get(name, "nearer")}, {}, toml)
    assert sources[name] is Source.FLAG


def test_file_with_a_secret_has_to_hold_one(tmp_path: Path) -> None:
    """A file that is missing, empty, too long or no text is told by its name, and so is a pair."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "long").write_text("a" * 300_000)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name, why in {
        "missing": "No such file",
        "empty": "it is empty",
        "long": "it is longer than",
        "bytes": "decode",
    }.items():
        [problem] = problems({"admin_key_file": str(tmp_path / name)})
        assert problem.startswith(f"--admin-key-file: {tmp_path / name}: ")
        assert why in problem
    [problem] = problems({"admin_key": "k", "admin_key_file": str(tmp_path / "empty")})
    assert problem == "admin_key, admin_key_file: set one of them"


def test_secret_in_a_file_is_read_without_its_last_newline(tmp_path: Path) -> None:
    """A key may stand in a file, as editors write it."""
    path = tmp_path / "secret"
    path.write_text("x" * 40 + "\n")

    assert Settings(jwt_key=str(path)).read_jwt_key() == "x" * 40
    assert Settings(jwt_key="x" * 40).read_jwt_key() == "x" * 40


@pytest.mark.parametrize(
    "host,alone",
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a", False)],  # noqa: S104
)
def test_host_is_known_to_be_ours_alone(host: str, alone: bool) -> None:
    """Only addresses of the loopback count as not reachable by others."""
    assert Settings(host=host).is_loopback is alone


@pytest.mark.parametrize(
    "text,origin",
    [
        ("https://A.Example", ("https", "a.example", 443)),
        ("http://a:8080", ("http", "a", 8080)),
        ("http://[::1]", ("http", "[::1]", 80)),
        ("capacitor://localhost", ("capacitor", "localhost", None)),
        ("null", None),
        ("https://a.example/", None),
        ("https://a.example:", None),
        ("https://user@a.example", None),
        ("https://a.example\n", None),
        ("*", None),
    ],
)
def test_origins_are_compared_by_their_parts(
    text: str, origin: tuple[str, str, int | None] | None
) -> None:
    """An origin is scheme, host and port; case and a default port make no difference."""
    assert parse_origin(text) == origin


def test_table_has_a_row_and_a_sentence_for_every_setting() -> None:
    """The table of the documents is made from the fields themselves."""
    lines = settings_table().splitlines()

    assert len(lines) == 2 + len(Settings.__struct_fields__)
    assert all(row.description for row in TABLE.values())
    assert "| `port` | integer | 8080 | TCP port; 0 takes a free one |" in lines
    assert os.environ.get("HOME", "/nowhere") not in settings_table()
