"""The command line. It parses, shows and explains; the work is done by the rooms below."""

from __future__ import annotations

from typing import Annotated

import typer

from sam2_fewshot import __version__
from sam2_fewshot.cli.demo import demo as demo_command
from sam2_fewshot.cli.interface import interface_command
from sam2_fewshot.cli.models import models_app
from sam2_fewshot.cli.segment import EPILOG, segment_command

app = typer.Typer(
    name="sam2-fewshot",
    help="Mark a few objects in microscopy images and get every similar one.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("segment", epilog=EPILOG)(segment_command)
app.command("demo")(demo_command)
app.command("interface")(interface_command)
app.add_typer(models_app, name="models")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sam2-fewshot {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    shown: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Mark a few objects in microscopy images and get every similar one."""


def main() -> None:
    """Run the command line."""
    app(prog_name="sam2-fewshot")
