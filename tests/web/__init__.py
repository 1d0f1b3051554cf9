"""Tests of what the gateway gives to browsers, in a real one."""

import pytest

pytest.register_assert_rewrite("tests.web.oracle", "tests.web.tabs")
