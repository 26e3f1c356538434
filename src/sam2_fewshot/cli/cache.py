"""``sam2-fewshot cache``: what was learned from examples and is kept."""

from __future__ import annotations

import typer

from sam2_fewshot.cli.guard import guarded

cache_app = typer.Typer(
    help="Show or empty the cache of what was learned from examples.", no_args_is_help=True, rich_markup_mode="rich"
)


@cache_app.command("info")
def info() -> None:
    """Show where the cache lies and how much it holds."""
    with guarded():
        from sam2_fewshot.job.object_cache import cache_folder, cached

        held = cached(cache_folder())
        typer.echo(f"{held.folder}: {_entries(held.entries)}, {held.size / 1e6:.1f} MB")


@cache_app.command("clear")
def clear() -> None:
    """Empty the cache. Checkpoints and results stay."""
    with guarded():
        from sam2_fewshot.job.object_cache import cache_folder
        from sam2_fewshot.job.object_cache import clear as empty

        held = empty(cache_folder())
        typer.echo(f"Deleted {_entries(held.entries)}, {held.size / 1e6:.1f} MB, from {held.folder}")


def _entries(count: int) -> str:
    return f"{count} set{'s' if count != 1 else ''} of examples"
