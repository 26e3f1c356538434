"""The small commands: ``models``, ``cache``, ``report`` and ``interface``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated

import typer

from sam2_fewshot.cli.console import guarded
from sam2_fewshot.cli.options import Debug, as_path
from sam2_fewshot.errors import counted

if TYPE_CHECKING:
    from sam2_fewshot.storage.cache import Cached

models_app = typer.Typer(
    help="List, download and find SAM 2 checkpoints.", no_args_is_help=True, rich_markup_mode="rich"
)

_NAME = typer.Argument(
    help="File name or short name, such as base_plus; see `sam2-fewshot models list`.", metavar="NAME"
)


@models_app.command("list")
def list_models() -> None:
    """List the known checkpoints, and where they are on this machine."""
    with guarded():
        from sam2_fewshot.backbones import CHECKPOINTS, available, resolve

        present = {found.checkpoint.name: found for found in available()}
        rows = [("Name", "Size", "Here")]
        for checkpoint in CHECKPOINTS:
            found = present.get(checkpoint.name)
            size = found.path.stat().st_size if found else checkpoint.download_size
            about = "" if found or checkpoint.size else "about "
            where = "no" if found is None else str(found.path)
            rows.append((checkpoint.name, f"{about}{size / 1e6:.0f} MB" if size else "", where))
        name_width, size_width = (max(len(row[column]) for row in rows) for column in (0, 1))
        for name, in_words, where in rows:  # no table of rich: it would fold a path, and then it cannot be copied
            typer.echo(f"{name:{name_width}}  {in_words:{size_width}}  {where}")
        typer.echo(f"\nWithout --model, {resolve('auto').checkpoint.name} is taken.")
        missing = [checkpoint.short_name for checkpoint in CHECKPOINTS if checkpoint.name not in present]
        if missing:
            others = f" (or {', '.join(missing[1:])})" if missing[1:] else ""
            typer.echo(f"Get another one: sam2-fewshot models fetch {missing[0]}{others}")


@models_app.command("fetch")
def fetch_model(name: Annotated[str, _NAME]) -> None:
    """Download a checkpoint into the user's cache; a broken download goes on where it stopped."""
    with guarded():
        from sam2_fewshot.backbones import fetch
        from sam2_fewshot.cli.console import terminal_display

        with terminal_display() as display:
            path = fetch(name, progress=display)
        typer.echo(path)


@models_app.command("path")
def model_path(name: Annotated[str, _NAME]) -> None:
    """Print where a checkpoint lies."""
    with guarded():
        from sam2_fewshot.backbones import resolve

        typer.echo(resolve(name).path)


cache_app = typer.Typer(
    help="Show or empty the cache of what was learned from examples.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@cache_app.command("info")
def info() -> None:
    """Print where the cache lies and how much it holds."""
    with guarded():
        from sam2_fewshot.storage.cache import cache_folder, cached

        held = cached(cache_folder())
        typer.echo(f"{held.folder}: {_in_words(held)}")


@cache_app.command("clear")
def clear() -> None:
    """Empty the cache. Checkpoints and results stay."""
    with guarded():
        from sam2_fewshot.storage.cache import cache_folder
        from sam2_fewshot.storage.cache import clear as empty

        held = empty(cache_folder())
        typer.echo(f"Deleted {_in_words(held)}, from {held.folder}")


def _in_words(held: Cached) -> str:
    return f"{counted(held.entries, 'set')} of examples, {held.size / 1e6:.1f} MB"


def report_command(
    out: Annotated[
        Path, typer.Argument(parser=as_path, help="Folder with results.", metavar="OUT", show_default=False)
    ],
    debug: Debug = False,
) -> None:
    """Rewrite report.html from an output folder; images and model are not needed."""
    with guarded(debug):
        from sam2_fewshot.report.page import write_report

        typer.echo(write_report(out))


def interface_command() -> None:
    """Print the form of the NimbusImage worker as JSON.

    Its models are the checkpoints on this machine.
    """
    with guarded():
        import json

        from sam2_fewshot.nimbus.form import interface, present_checkpoints

        typer.echo(json.dumps(interface(present_checkpoints()), indent=2))
