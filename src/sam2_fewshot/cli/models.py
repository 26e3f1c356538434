"""``sam2-fewshot models``: which checkpoints there are, where they lie, and how to get them."""

from __future__ import annotations

from typing import Annotated

import typer

from sam2_fewshot.cli.guard import guarded

models_app = typer.Typer(
    help="List, download and find SAM 2 checkpoints.", no_args_is_help=True, rich_markup_mode="rich"
)

_NAME = typer.Argument(help="File name or short name, such as base_plus; see `sam2-fewshot models list`.")


@models_app.command("list")
def list_models() -> None:
    """Show the known checkpoints, and where they are on this machine."""
    with guarded():
        from rich.console import Console
        from rich.table import Table

        from sam2_fewshot.model.locate import available, resolve
        from sam2_fewshot.model.registry import CHECKPOINTS

        present = {found.checkpoint.name: found for found in available()}
        chosen = resolve("auto").checkpoint.name
        table = Table(box=None, pad_edge=False)
        for title in ("Name", "Size", "Here", "Note"):
            table.add_column(title, overflow="fold", no_wrap=title in ("Name", "Size"))
        for checkpoint in CHECKPOINTS:
            found = present.get(checkpoint.name)
            size = found.path.stat().st_size if found else checkpoint.download_size
            about = "" if found or checkpoint.size else "about "
            notes = ["used by --model auto"] if checkpoint.name == chosen else []
            if found and found.origin == "embedded":
                notes.append("comes with this program, small and general")
            if not found:
                notes.append(f"get it: sam2-fewshot models fetch {checkpoint.short_name}")
            table.add_row(
                checkpoint.name,
                f"{about}{size / 1e6:.0f} MB" if size else "",
                str(found.path) if found else "no",
                "; ".join(notes),
            )
        Console(soft_wrap=False).print(table)


@models_app.command("fetch")
def fetch_model(name: Annotated[str, _NAME]) -> None:
    """Download a checkpoint into the user's cache; a broken download goes on where it stopped."""
    with guarded():
        from sam2_fewshot.cli.console import shown
        from sam2_fewshot.model.fetch import fetch

        with shown() as display:
            path = fetch(name, progress=display)
        typer.echo(path)


@models_app.command("path")
def model_path(name: Annotated[str, _NAME]) -> None:
    """Print where a checkpoint lies."""
    with guarded():
        from sam2_fewshot.model.locate import resolve

        typer.echo(resolve(name).path)
