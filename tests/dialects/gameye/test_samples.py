"""The requests of Gameye's own documents, run as they stand but for host and token.

Each is run by the program it was written for, over TLS, which is what they ask for.
"""

import asyncio
import datetime as dt
import ipaddress
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.json import decode

from gateway.app import running
from gateway.settings import Settings
from tests.dialects.gameye.conftest import ADMIN, Served, begin, serving
from tests.support import S

HERE: Final = Path(__file__).parent
HOST: Final = "https://api.sandbox-gameye.gameye.net"
WITHIN_S: Final = 20 * S  # for a program to start, ask and end; Ruby is slow on a busy machine


@dataclass(frozen=True)
class Language:
    """How a sample is run, and how its author would have added a token.

    Args:
        program: What runs it.
        arguments: Before the sample's text.
        after: The line of the sample that the token's line follows.
        token: That line.
    """

    program: str
    arguments: tuple[str, ...]
    after: str
    token: str


LANGUAGES: Final = {
    "curl": Language(
        "bash",
        ("-c",),
        "--header 'Accept: application/json' \\",
        f"--header 'Authorization: Bearer {ADMIN}' \\",
    ),
    "fetch": Language(
        "node",
        ("--eval",),
        'myHeaders.append("Accept", "application/json");',
        f'myHeaders.append("Authorization", "Bearer {ADMIN}");',
    ),
    "ruby": Language(
        "ruby",
        ("-e",),
        'request["Accept"] = "application/json"',
        f'request["Authorization"] = "Bearer {ADMIN}"',
    ),
    "requests": Language(
        sys.executable,
        ("-c",),
        "'Accept': 'application/json',",
        f"'Authorization': 'Bearer {ADMIN}',",
    ),
}


@dataclass(frozen=True)
class Trusted:
    """The dialect over TLS, with a certificate that the programs are told to trust.

    Args:
        url: Its root.
        certificate: A file.
        plain: The same dialect without TLS, for the test itself.
    """

    url: str
    certificate: Path
    plain: Served

    async def run(self, language: Language, text: str) -> Any:  # noqa: ANN401 - JSON
        """Run *text* and return what it printed."""
        trust = ("CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
        known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            *(language.program, *language.arguments, text),
            env={**known, **dict.fromkeys(trust, str(self.certificate))},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                printed, complaints = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, complaints.decode()
        return decode(printed)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of a certificate for the loopback, its own authority, and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@pytest.fixture
async def trusted(settings: Settings, certificate: tuple[Path, Path]) -> AsyncIterator[Trusted]:
    """The dialect at the root of a server that speaks TLS."""
    async with (
        running(settings) as context,
        serving(context) as plain,
        serving(context, certificate) as url,
    ):
        yield Trusted(url, certificate[0], Served(plain, context))


def need(language: Language) -> None:
    """Skip without the program."""
    if not shutil.which("curl" if language.program == "bash" else language.program):
        pytest.skip(f"{language.program} is not installed")


def sample(name: str, url: str) -> str:
    """Return a sample that asks *url* and is else as Gameye wrote it."""
    text = (HERE / "samples" / f"{name}.txt").read_text()
    assert HOST in text
    return text.replace(HOST, url)


def with_token(language: Language, text: str) -> str:
    """Return a sample with the line that its author left out."""
    assert language.after in text
    return text.replace(language.after, f"{language.after}\n{language.token}")


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", LANGUAGES)
async def test_sample_of_the_documents_lists_the_sessions(trusted: Trusted, name: str) -> None:
    """A sample with a token prints the sessions; without one, Gameye's error."""
    language = LANGUAGES[name]
    need(language)
    text = sample(name, trusted.url)
    async with trusted.plain.http() as http:
        session_id = await begin(http, labels={"my-example-tag": "1"})

    refused = await trusted.run(language, text)
    assert (refused["statusCode"], refused["code"]) == (401, "UNAUTHORIZED")
    assert refused["path"] == "/session"
    [entry] = (await trusted.run(language, with_token(language, text)))["sessions"]
    assert entry["id"] == session_id
    assert isinstance(entry["port"], dict)
    filtered = text.replace("/session", "/session?filter%5Bmy-example-tag%5D=2&all=true")
    assert await trusted.run(language, with_token(language, filtered)) == {"sessions": []}


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_string_encoding_answers_in_the_shape_of_the_sample(trusted: Trusted) -> None:
    """With ``encoding=string`` the answer has the form that Gameye's document shows."""
    language = LANGUAGES["curl"]
    need(language)
    documented = decode((HERE / "golden" / "sample.json").read_bytes())
    labels = {"my-example-tag": "1", "another-example-tag": "3"}
    async with trusted.plain.http() as http:
        await begin(http, image="nginx", location="europe", labels=labels)

    text = sample("curl", trusted.url).replace("/session", "/session?encoding=string")
    answered = await trusted.run(language, with_token(language, text))
    [entry], [expected] = answered["sessions"], documented["sessions"]
    assert list(entry) == list(expected)
    assert {name: type(value) for name, value in entry.items()} == {
        name: type(value) for name, value in expected.items()
    }
    assert decode(entry["port"]).keys() == decode(expected["port"]).keys()
    ours, theirs = (decode(one["labels"])["labels"] for one in (entry, expected))
    assert ours.keys() >= theirs.keys()
    assert decode(ours["tags"]) == decode(theirs["tags"])
    assert decode(ours["env"]).keys() >= decode(theirs["env"]).keys()
    assert (entry["image"], entry["tag"], entry["location"]) == ("nginx", "latest", "europe")
