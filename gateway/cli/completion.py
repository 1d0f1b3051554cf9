"""``gateway completion``: a script with which a shell completes commands and flags."""

from typing import Annotated, Literal

from cyclopts import Parameter

from gateway.cli.output import put


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Which.")], /
) -> None:
    """Write the script; your shell reads it at its start: source <(gateway completion bash)."""
    from gateway.cli import command_line  # noqa: PLC0415 - it names this module

    put(command_line().generate_completion(prog_name="gateway", shell=shell))
