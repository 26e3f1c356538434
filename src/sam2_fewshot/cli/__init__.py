"""The command line: it parses, displays and explains. The work is done by the packages that it calls."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sam2_fewshot import __version__
from sam2_fewshot.cli.convert import EPILOG as CONVERT_EPILOG
from sam2_fewshot.cli.convert import convert as convert_command
from sam2_fewshot.cli.demo import demo as demo_command
from sam2_fewshot.cli.evaluate import EPILOG as EVALUATE_EPILOG
from sam2_fewshot.cli.evaluate import evaluate
from sam2_fewshot.cli.options import Command
from sam2_fewshot.cli.refine import EPILOG as REFINE_EPILOG
from sam2_fewshot.cli.refine import refine_command
from sam2_fewshot.cli.segment import EPILOG, segment_command
from sam2_fewshot.cli.tools import cache_app, interface_command, models_app, report_command
from sam2_fewshot.errors import PIPE_CLOSED
from sam2_fewshot.resources import share_cores

app = typer.Typer(
    name="sam2-fewshot",
    help="Mark a few objects in microscopy images and get every similar one.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("segment", cls=Command, epilog=EPILOG)(segment_command)
app.command("refine", cls=Command, epilog=REFINE_EPILOG)(refine_command)
app.command("evaluate", cls=Command, epilog=EVALUATE_EPILOG)(evaluate)
app.command("report", cls=Command)(report_command)
app.command("convert", cls=Command, epilog=CONVERT_EPILOG)(convert_command)
app.command("demo", cls=Command)(demo_command)
app.command("interface", cls=Command)(interface_command)
app.add_typer(models_app, name="models")
app.add_typer(cache_app, name="cache")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sam2-fewshot {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Mark a few objects in microscopy images and get every similar one."""


def main() -> None:
    """Run the command line; where the reader of its output is gone, as of ``| head``, it ends in silence."""
    share_cores()
    for stream in (sys.stdout, sys.stderr):
        # Output that is redirected on Windows is in the system's old encoding, which lacks letters such as ×.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="sam2-fewshot")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer and Rich make a failure of it
            raise SystemExit(PIPE_CLOSED) from None
        raise
