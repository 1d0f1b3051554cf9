"""The examples in ``deploy/``, checked by the tools that will read them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.server.test_metrics import PAGE

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
PRODUCTION: Final = PAGE.with_name("production.md").read_text()
METRICS: Final = set(re.findall(r"^\| `(gateway_\w+)`", PAGE.read_text(), re.MULTILINE))
UNITS: Final = {"MiB": 1, "GiB": 1024}
EXPOSURE_MAX: Final = 2.5  # of systemd-analyze security: 0 is locked up, 10 is open


def run(*command: str | Path, place: Path = DEPLOY) -> str:
    """Run a tool and return what it says; it must be content."""
    program = str(command[0])
    beside = Path(sys.executable).parent / program
    if not beside.exists() and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [beside if beside.exists() else program, *command[1:]],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def queries() -> list[str]:
    """Return every query of the dashboard."""
    dashboard: Any = json.loads((DEPLOY / "grafana" / "session-gateway.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_alerts_do_what_their_tests_say() -> None:
    """Rules are valid, and each one fires when it should and not before."""
    run("promtool", "check", "rules", "prometheus/rules.yml")
    run("promtool", "check", "config", "prometheus/prometheus.yml")
    said = run("promtool", "test", "rules", "prometheus/rules_test.yml")
    tested = (DEPLOY / "prometheus" / "rules_test.yml").read_text()

    assert "SUCCESS" in said
    for alert in re.findall(r"alert: (\w+)", (DEPLOY / "prometheus" / "rules.yml").read_text()):
        assert f"alertname: {alert}" in tested


def test_documents_say_what_to_do_about_each_alert() -> None:
    """Every alert has a row, and every row is of an alert."""
    alerts = re.findall(r"alert: (\w+)", (DEPLOY / "prometheus" / "rules.yml").read_text())

    assert re.findall(r"^\| `(Gateway\w+)` \| .+ \|$", PRODUCTION, re.MULTILINE) == alerts


def test_sizes_in_the_documents_follow_their_formula() -> None:
    """Each row has what the formula above it gives, and advises more than that."""
    [process] = re.findall(r"^memory of a process +=(.+)$", PRODUCTION, re.MULTILINE)
    [redis] = re.findall(r"^memory of Redis +=(.+)$", PRODUCTION, re.MULTILINE)
    base, a_session, a_socket, a_watcher = map(float, re.findall(r"[\d.]+", process))
    a_record, log, closed = map(float, re.findall(r"[\d.]+", redis))
    row = r"^\| ([\d,]+) \| (\d+) \| ([\d,]+) MiB \| (\d+) (.iB) \| ([\d,]+) MiB \| (\d+) (.iB) \|$"
    rows = re.findall(row, PRODUCTION, re.MULTILINE)
    assert len(rows) == 3
    for cells in rows:
        sessions, processes, each, stored = (
            int(cells[place].replace(",", "")) for place in (0, 1, 2, 5)
        )
        sockets = a_socket * sessions / processes + a_watcher * sessions / 100 / processes
        assert each == round(base + (a_session * sessions + sockets) / 1024)
        assert stored == round(a_record * sessions / 1024 + log + closed)
        assert int(cells[3]) * UNITS[cells[4]] > each
        assert int(cells[6]) * UNITS[cells[7]] > stored


def test_queries_name_metrics_that_there_are() -> None:
    """Alerts and the dashboard ask for metrics of the documents."""
    asked = (DEPLOY / "prometheus" / "rules.yml").read_text() + "\n".join(queries())
    named = set(re.findall(r"\b(gateway_[a-z_]+)\b", asked))

    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} <= METRICS


def test_nginx_takes_the_configuration_of_the_compose_file(tmp_path: Path) -> None:
    """It is valid where the names of the gateways are known."""
    text = (DEPLOY / "compose" / "nginx.conf").read_text()
    config = tmp_path / "nginx.conf"
    config.write_text(
        re.sub(r"gateway-\d:8080", "127.0.0.1:8080", text).replace(
            "worker_rlimit_nofile 65536", f"pid {tmp_path}/pid; worker_rlimit_nofile 1024"
        )
    )

    assert "test is successful" in run("nginx", "-t", "-e", tmp_path / "log", "-c", config)


@pytest.mark.deploy
def test_dockerfile_has_no_lint() -> None:
    """Hadolint finds nothing."""
    assert run("hadolint", "docker/Dockerfile") == ""


@pytest.mark.deploy
def test_compose_file_follows_the_specification() -> None:
    """It is valid by the schema of the Compose specification."""
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose/compose.yaml")


@pytest.mark.deploy
def test_kubernetes_takes_all_that_kustomize_makes(tmp_path: Path) -> None:
    """Every resource is valid, with no field that Kubernetes does not know."""
    shutil.copytree(DEPLOY / "kubernetes", tmp_path, dirs_exist_ok=True)
    for secret in ("admin_key", "redis_url"):
        (tmp_path / secret).write_text("secret")
    build = ("kubectl", "kustomize") if shutil.which("kubectl") else ("kustomize", "build")
    made = tmp_path / "made.yaml"
    made.write_text(run(*build, tmp_path))
    said = run("kubernetes-validate", "--strict", made)

    assert len(re.findall(r"^kind: ", made.read_text(), re.MULTILINE)) == said.count("passed") == 5


@pytest.mark.deploy
def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    """It is valid, and locked up well."""
    unit = tmp_path / "session-gateway.service"
    text = (DEPLOY / "systemd" / unit.name).read_text()
    unit.write_text(text.replace("/opt/session-gateway/bin", str(Path(sys.executable).parent)))
    assert run("systemd-analyze", "verify", unit) == ""
    said = run("systemd-analyze", "security", "--offline=true", unit)
    [level] = re.findall(r"Overall exposure level for [^:]+: ([\d.]+)", said)

    assert float(level) <= EXPOSURE_MAX
