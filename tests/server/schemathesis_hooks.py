"""What schemathesis must know of us; loaded by its process (``SCHEMATHESIS_HOOKS``)."""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: object) -> object:  # noqa: ARG001
    """Write 1.0 as 1: to JSON Schema both are integers, to us only the latter is."""
    return _whole(body)


def _whole(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
