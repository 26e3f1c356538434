"""``sam2-fewshot interface``: the NimbusImage worker's form, to look at."""

from __future__ import annotations

import typer

from sam2_fewshot.cli.guard import guarded


def interface_command() -> None:
    """Show the form of the NimbusImage worker as JSON.

    Its models are the checkpoints on this machine.
    """
    with guarded():
        import json

        from sam2_fewshot.nimbus.form import interface, present_checkpoints

        typer.echo(json.dumps(interface(present_checkpoints()), indent=2, ensure_ascii=False))
