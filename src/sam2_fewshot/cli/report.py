"""``sam2-fewshot report``: make ``report.html`` again from an output folder."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import Annotated

import typer

from sam2_fewshot.cli.guard import guarded


def report_command(
    out: Annotated[Path, typer.Argument(help="Folder with results.", metavar="OUT", show_default=False)],
    debug: Annotated[bool, typer.Option("--debug", help="Show where a defect of the program is.")] = False,
) -> None:
    """Make report.html again from an output folder; images and model are not needed."""
    with guarded(debug):
        from sam2_fewshot.report import write_report

        typer.echo(write_report(out.expanduser()))
