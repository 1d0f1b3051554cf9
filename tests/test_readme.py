"""The README says what the code does: its tables come from the same places."""

import re
from pathlib import Path

import pytest

from gateway.core.errors import ERRORS, CloseCode
from gateway.settings import settings_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_readme() -> None:
    """The table of settings is the one that the code gives."""
    assert settings_table() in README


@pytest.mark.parametrize("code", ERRORS)
def test_every_error_is_in_the_readme(code: str) -> None:
    """A row an error, with its status, its close code and whether to try again."""
    error = ERRORS[code]
    again = "yes" if error.retry else "no"

    row = f"| `{code}` | {error.status} | {int(error.close_code)} | {again} | {error.title} |"
    assert row in README


@pytest.mark.parametrize("code", CloseCode)
def test_every_close_code_is_in_the_readme(code: CloseCode) -> None:
    """A row a close code."""
    assert re.search(rf"^\| {int(code)} \| .+ \|$", README, re.MULTILINE)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    """What the README points to is there."""
    assert (ROOT / link).exists()


@pytest.mark.parametrize("script", sorted(set(re.findall(r"\bscripts/[a-z]+\b", README))))
def test_scripts_are_there_and_can_be_run(script: str) -> None:
    """A script that the README names has its run bit."""
    assert (ROOT / script).stat().st_mode & 0o111
