"""``sam2-fewshot cache``: what was learned from examples, and the embeddings that are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from sam2_fewshot.cli.guard import guarded

if TYPE_CHECKING:
    from sam2_fewshot.job.caches import Cached

cache_app = typer.Typer(
    help="Show or empty the cache of what was learned from examples and of embeddings.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@cache_app.command("info")
def info() -> None:
    """Show where the cache lies and how much it holds."""
    with guarded():
        from sam2_fewshot.job.caches import OBJECTS, TILES, cache_folder, cached

        root = cache_folder()
        for held, what in (
            (
                cached(root, OBJECTS),
                "set",
            ),
            (cached(root, TILES), "tile"),
        ):
            typer.echo(f"{held.folder}: {_in_words(held, what)}")


@cache_app.command("clear")
def clear() -> None:
    """Empty the cache. Checkpoints and results stay."""
    with guarded():
        from sam2_fewshot.job.caches import OBJECTS, TILES, cache_folder
        from sam2_fewshot.job.caches import clear as empty

        root = cache_folder()
        for held, what in ((empty(root, OBJECTS), "set"), (empty(root, TILES), "tile")):
            typer.echo(f"Deleted {_in_words(held, what)}, from {held.folder}")


def _in_words(held: Cached, what: str) -> str:
    one, many = {
        "set": ("set of examples", "sets of examples"),
        "tile": ("embedding of a tile", "embeddings of tiles"),
    }[what]
    return f"{held.entries} {one if held.entries == 1 else many}, {held.size / 1e6:.1f} MB"
