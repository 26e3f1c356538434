"""``sam2-fewshot convert``: marked objects from one format to another."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import Annotated

import typer

from sam2_fewshot.annotations.registry import NAMES, noted
from sam2_fewshot.cli.console import guarded
from sam2_fewshot.cli.options import Debug, as_path, expand, optional, required
from sam2_fewshot.errors import DONE, counted

EPILOG = """
[bold]Examples[/bold]

  sam2-fewshot convert RoiSet.zip cells.geojson

  sam2-fewshot convert cells.geojson cells_labels.tif --image cells.tif

  sam2-fewshot convert results/ coco.json --image plate/

  sam2-fewshot convert coco.json rois/ --to roi
"""


def convert(
    source: Annotated[
        Path,
        required(
            parser=as_path,
            help="What examples can be read from: a label image, GeoJSON, ImageJ ROIs, COCO, OME-Zarr labels, a "
            "NimbusImage export, or a folder of those.",
            metavar="IN",
        ),
    ],
    out: Annotated[
        Path,
        required(
            parser=as_path,
            help="The file to write, its ending decides its format; or a folder, with --to.",
            metavar="OUT",
        ),
    ],
    to: Annotated[
        str | None, optional(help=f"Format: {noted(NAMES, ' or ')}. Left out: by the ending of OUT.", metavar="NAME")
    ] = None,
    image: Annotated[
        list[str] | None,
        optional(
            help="Image, folder or pattern that the objects lie on, may be given more than once. Gives sizes, planes "
            "and pixel size.",
            metavar="PATH",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    debug: Debug = False,
) -> None:
    """Convert marked objects from one file format to another."""
    with guarded(debug):
        from sam2_fewshot.annotations.convert import convert as run

        images = expand(image or [])
        done = run(source.expanduser(), out.expanduser(), to, images, overwrite)
        written = done.files[0] if len(done.files) == 1 else f"{len(done.files)} files in {out}"
        typer.echo(f"Wrote {counted(done.objects, 'object')} on {counted(done.frames, 'frame')} to {written}.")
    raise typer.Exit(DONE)
