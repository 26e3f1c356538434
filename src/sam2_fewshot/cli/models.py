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
        from sam2_fewshot.model.locate import available, resolve
        from sam2_fewshot.model.registry import CHECKPOINTS

        present = {found.checkpoint.name: found for found in available()}
        rows = [("Name", "Size", "Here")]
        for checkpoint in CHECKPOINTS:
            found = present.get(checkpoint.name)
            size = found.path.stat().st_size if found else checkpoint.download_size
            about = "" if found or checkpoint.size else "about "
            where = "no" if found is None else str(found.path)
            rows.append((checkpoint.name, f"{about}{size / 1e6:.0f} MB" if size else "", where))
        name_width, size_width = (max(len(row[column]) for row in rows) for column in (0, 1))
        for name, told, where in rows:  # no table of rich: it would fold a path, and then it cannot be copied
            typer.echo(f"{name:{name_width}}  {told:{size_width}}  {where}")
        typer.echo(f"\nWithout --model, {resolve('auto').checkpoint.name} is taken.")
        missing = [checkpoint.short_name for checkpoint in CHECKPOINTS if checkpoint.name not in present]
        if missing:
            others = f" (or {', '.join(missing[1:])})" if missing[1:] else ""
            typer.echo(f"Get another one: sam2-fewshot models fetch {missing[0]}{others}")


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
