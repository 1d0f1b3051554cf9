"""The container image: built from Debian's packages, and run as it will be run, read-only."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.test_examples import DEPLOY
from tests.support import S

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(600)]

CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"  # of this machine: its registries
BASE: Final = f"""
FROM scratch
ADD base.tar /
COPY certificates.crt {CERTIFICATES}
ENV PIP_CERT={CERTIFICATES}
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file system of the image, built with a base of this machine's own making."""
    if shutil.which("buildah") is None or shutil.which("mmdebstrap") is None:
        pytest.skip("buildah or mmdebstrap is not installed")
    place = tmp_path_factory.mktemp("image")
    packages = "--include=python3,python3-venv,ca-certificates"
    command(place, "mmdebstrap", "--variant=minbase", packages, "bookworm", "base.tar")
    shutil.copy(CERTIFICATES, place / "certificates.crt")
    (place / "Base").write_text(BASE)
    build = ("bud", "--format", "docker")
    buildah(place, *build, "-t", "localhost/base", "-f", "Base", ".")
    buildah(
        place,
        *(*build, "--build-arg", "BASE=localhost/base", "-t", "localhost/gateway"),
        *("-f", str(DEPLOY / "docker" / "Dockerfile"), str(DEPLOY.parent)),
    )
    container = buildah(place, "from", "localhost/gateway").strip()
    yield Path(buildah(place, "mount", container).strip())
    buildah(place, "umount", "--all")
    buildah(place, "rm", "--all")


def command(place: Path, *arguments: str) -> str:
    """Run a tool and return what it prints."""
    env = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    done = subprocess.run(
        arguments, cwd=place, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def buildah(place: Path, *arguments: str) -> str:
    """Run buildah with a store of its own."""
    store = ("--storage-driver", "vfs", "--root", f"{place}/store", "--runroot", f"{place}/run")
    return command(place, "buildah", *store, *arguments)


def test_image_serves_as_a_user_without_rights(image: Path) -> None:
    """As user 10001, who owns nothing but the data, it gets ready, answers a probe and leaves."""
    script = """
        set -e
        gateway serve --host 127.0.0.1 --port 0 --admin-key K >/tmp/said 2>&1 &
        until grep -q ready /tmp/said; do kill -0 $!; sleep 0.1; done
        url=$(grep -o 'http://[^ ]*' /tmp/said)
        gateway ping --url $url
        kill $!
        wait $!
        find / -xdev -user 10001 -not -path '/proc/*' -not -path '/tmp/*' | head -1
    """
    env = {
        "PATH": "/opt/gateway/bin:/usr/bin:/bin",
        "GATEWAY_DATA_DIR": "/data",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/data",
    }
    done = subprocess.run(
        ["/usr/sbin/chroot", "--userspec=10001:10001", str(image), "sh", "-c", script],
        env=env,
        capture_output=True,
        text=True,
        timeout=60 * S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "/data"
