"""The documents hold what the code has: settings, errors, close codes, scopes, events, commands."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import pytest
from cyclopts import App

from gateway.api import asyncapi
from gateway.api.pages import FOLDER, INDEX, served
from gateway.api.routes import ENDPOINTS
from gateway.app import DIALECTS
from gateway.auth.principals import Scope
from gateway.cli import command_line
from gateway.core.errors import ERRORS, CloseCode
from gateway.core.event import AnyEvent
from gateway.core.model import Outcome, State
from gateway.core.protocol import ObserverMessage
from gateway.core.query import Filter
from gateway.http.endpoint import EndpointTable
from gateway.http.markdown import render
from gateway.settings import settings_table
from gateway.settings.table import TABLE
from tests.documents.fences import PAGES, ROOT, of

TEXTS: Final = {name: path.read_text() for name, path in PAGES.items()}
EVERYTHING: Final = "\n".join(TEXTS.values())
FOREIGN_FLAGS: Final = {"--help", "--ulimit"}  # of every command, and of Docker
FOR_PEOPLE_WHO_CHANGE_IT: Final = [
    ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "gateway/README.md")
]
README_MAX_BYTES: Final = 8192  # one screen of a way in; the rest is in pages


def commands(group: App) -> Iterator[tuple[str, App]]:
    """Yield every command, also those of groups, by the words after ``gateway``."""
    for name in group:
        if not name.startswith("-"):
            inner = list(commands(group[name]))
            yield from ((f"{name} {word}", app) for word, app in inner)
            if not inner:
                yield name, group[name]


COMMANDS: Final = dict(commands(command_line()))


def rows(page: str) -> list[str]:
    """Return the first cells of all tables of a page, where they are one code."""
    return re.findall(r"^\| `([^`]+)` \|", TEXTS[page], re.MULTILINE)


def test_readme_is_a_way_in() -> None:
    """The README is short; what it leads to is in pages."""
    assert len((ROOT / "README.md").read_bytes()) <= README_MAX_BYTES


def test_settings_are_those_of_the_code() -> None:
    """The table of settings is the one that the code gives."""
    assert settings_table() in TEXTS["docs/settings"]


@pytest.mark.parametrize("code", ERRORS)
def test_error_is_in_its_table(code: str) -> None:
    """An error has a row with its status, its close code, whether to try again, and what to do."""
    error = ERRORS[code]
    again = "yes" if error.retry else "no"

    row = f"| `{code}` | {error.status} | {int(error.close_code)} | {again} | {error.title} | "
    [found] = re.findall(rf"^{re.escape(row)}(.+) \|$", TEXTS["docs/errors"], re.MULTILINE)
    assert found.endswith(".")


@pytest.mark.parametrize("code", CloseCode)
def test_close_code_is_in_its_table(code: CloseCode) -> None:
    """A close code has a row with its name, whether to come back, and the meaning it has at all."""
    again = "yes" if code.reconnect else "no"

    row = f"| `{int(code)}` | `{code.name.lower()}` | {again} | {asyncapi.MEANINGS[code]} |"
    assert row in TEXTS["docs/errors"]


def test_no_table_has_what_the_code_does_not_have() -> None:
    """A row of an error, an event, a state, an outcome, a scope stands for one of the code."""
    known = {*ERRORS, *(str(int(code)) for code in CloseCode), *map(str, asyncapi.OTHER_CODES)}
    events = {kind.__struct_config__.tag for kind in get_args(AnyEvent)}
    events |= {"session.enter", "session.exit"}

    assert set(rows("docs/errors")) == known
    assert set(rows("docs/concepts")) == {*map(str, State), *events}
    assert set(rows("docs/delayed-close")) == set(get_args(Outcome))
    assert set(rows("docs/access")) == {str(scope) for scope in Scope}
    assert set(rows("docs/settings")) == set(TABLE)


def test_requests_are_those_of_the_code() -> None:
    """The table of requests has every operation of the native API, and no other."""
    operations = {
        f"{endpoint.method} {endpoint.path.replace(':path', '')}"
        for endpoint in ENDPOINTS
        if endpoint.path.startswith("/v1/") and not endpoint.is_hidden
    }

    assert set(rows("docs/rest-and-events")) == operations


def test_inline_requests_and_flags_are_there() -> None:
    """A request or a flag in the middle of a sentence is one that the code has."""
    table = EndpointTable(ENDPOINTS)
    native = "\n".join(text for page, text in TEXTS.items() if page[5:] not in DIALECTS)
    requests = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/v1/[^`?]*)", native)
    flags = set(re.findall(r"`(--[a-z-]+)", EVERYTHING))

    assert [one for one in requests if table.match(one[1], one[0]).endpoint is None] == []
    known = {
        name
        for app in COMMANDS.values()
        for argument in app.assemble_argument_collection()
        for name in argument.names
    }
    assert flags - known <= FOREIGN_FLAGS


def test_named_events_of_a_stream_are_those_of_the_code() -> None:
    """A stream that the documents show has the names that a listener hears."""
    shown = {
        name
        for fence in of("text")
        for name in re.findall(r"^event: (.+)$", fence.code, re.MULTILINE)
    }
    events = {str(kind.__struct_config__.tag) for kind in get_args(AnyEvent)}

    assert shown - events <= {str(kind.__struct_config__.tag) for kind in get_args(ObserverMessage)}


def test_filters_are_those_of_the_code() -> None:
    """Every filter is told."""
    for name in Filter.__struct_fields__:
        assert f"`{'label.<name>=<value>' if name == 'labels' else name}`" in EVERYTHING


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_in_the_documents(command: str) -> None:
    """Each command of ``gateway`` has an example in some page, which is run or says why not."""
    shown = "\n".join(fence.code for fence in of("sh"))
    assert re.search(rf"\bgateway {command}\b|scripts/{command}\b", shown)


@pytest.mark.parametrize(
    "path",
    [*PAGES.values(), *FOR_PEOPLE_WHO_CHANGE_IT],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_of_a_page_lead_somewhere(path: Path) -> None:
    """A link leads to a file that is there, and to an anchor of it."""
    broken = []
    for link in render(path.read_text()).links:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        if not target.exists() or (anchor and anchor not in render(target.read_text()).anchors):
            broken.append(link)

    assert broken == []


def test_index_lists_every_page() -> None:
    """Each page is in the list that a reader sees first."""
    listed = {served(link) for link in render(TEXTS[f"docs/{INDEX}"]).links}

    assert {path.stem for path in FOLDER.glob("*.md") if path.stem != INDEX} <= listed


def test_scripts_are_there_and_can_be_run() -> None:
    """A script that the documents name has its run bit."""
    texts = [EVERYTHING, *(path.read_text() for path in FOR_PEOPLE_WHO_CHANGE_IT)]
    scripts = set(re.findall(r"\bscripts/[a-z]+\b", "\n".join(texts)))

    assert scripts
    assert all((ROOT / script).stat().st_mode & 0o111 for script in scripts)


def test_benchmark_has_the_figures_of_the_last_run() -> None:
    """The processor time of a delivery is what the results say."""
    results = (ROOT / "deploy" / "bench" / "RESULTS.md").read_text()
    for ours, theirs in (
        ("20 events a second: CPU of a delivery", "one channel, fixed rate: CPU a delivery"),
        ("as many events as it takes: CPU of a", "one channel, saturated: CPU a delivery"),
    ):
        [row] = re.findall(rf"^\| {ours}.*$", TEXTS["docs/benchmark"], re.MULTILINE)
        [measured] = re.findall(rf"^\| {theirs}.*$", results, re.MULTILINE)
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", measured)]
        figures = re.findall(r"([\d.]+) µs", row)
        del figures[1]  # of two workers, which have a row of their own
        for figure in figures:
            assert figure in {f"{number:.{len(figure.partition('.')[2])}f}" for number in numbers}
