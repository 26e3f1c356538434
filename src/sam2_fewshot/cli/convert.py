"""``sam2-fewshot convert``: marked objects from one format to another."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated

import typer

from sam2_fewshot.annotations.registry import NAMES, noted
from sam2_fewshot.cli.console import guarded
from sam2_fewshot.cli.options import Debug, as_path, expand, optional, required
from sam2_fewshot.errors import DONE, counted

if TYPE_CHECKING:
    from sam2_fewshot.annotations.convert import Converted

EPILOG = """
[bold]Examples[/bold]

  sam2-fewshot convert RoiSet.zip cells.geojson

  sam2-fewshot convert cells.geojson cells_labels.tif --image cells.tif

  sam2-fewshot convert results/ coco.json

  sam2-fewshot convert coco.json rois/ --to roi
"""


def convert(
    source: Annotated[
        Path,
        required(
            parser=as_path,
            help="What examples can be read from: a label image, GeoJSON, ImageJ ROIs, COCO, OME-Zarr labels, a "
            "NimbusImage export, or a folder of those; or the folder with the results of a run.",
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
            "and pixel size, which results of a run have themselves.",
            metavar="PATH",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace files, and OME-Zarr labels of this program."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Convert marked objects from one file format to another."""
    with guarded(debug):
        done = _convert(source, out, to, expand(image or []), overwrite)
        written = done.files[0] if len(done.files) == 1 else f"{len(done.files)} files in {out}"
        typer.echo(f"Wrote {counted(done.objects, 'object')} on {counted(done.frames, 'frame')} to {written}.")
    raise typer.Exit(DONE)


def _convert(source: Path, out: Path, to: str | None, images: list[Path], overwrite: bool) -> Converted:
    from sam2_fewshot.annotations.convert import convert, write_results
    from sam2_fewshot.output.finished import read_finished
    from sam2_fewshot.output.journal import JOURNAL_FOLDER
    from sam2_fewshot.protocols import Quiet

    if not (source / "run.json").is_file():
        return convert(source, out, to, images, overwrite)
    if not (source / JOURNAL_FOLDER).is_dir():
        Quiet().warn(
            f"{source} has lost its folder {JOURNAL_FOLDER}, so masks are drawn from the outlines in geojson/, which "
            "may be smoothed and without holes. Run the same sam2-fewshot segment command again for the exact ones."
        )
        return convert(source / "geojson", out, to, images, overwrite)
    if images:
        Quiet().warn("The results of a run say themselves which images their objects lie on; --image is passed over.")
    finished = read_finished(source)
    tags = [str(tag) for tag in finished.facts.get("tags", ())]
    return write_results(finished.records, tags, source, out, to, overwrite, finished.has_searched)
