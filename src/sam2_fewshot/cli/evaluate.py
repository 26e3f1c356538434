"""``sam2-fewshot evaluate``: compare detections with the true objects."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated

import typer

from sam2_fewshot.cli.console import guarded
from sam2_fewshot.cli.options import Debug, as_path, optional, required
from sam2_fewshot.errors import SettingsError, counted, were

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.evaluation.figures import Evaluation
    from sam2_fewshot.evaluation.matching import Scores

EPILOG = """
[bold]Examples[/bold]

Results against label images named after the images (a_labels.png for a.tif); the examples are not evaluated:

  sam2-fewshot evaluate results truth/

Any two label images, at two IoUs, as a table and as JSON:

  sam2-fewshot evaluate found.tif true.tif --iou 0.5,0.75 --json figures.json

With a picture of each frame: hit, missed, false:

  sam2-fewshot evaluate results truth/ --pictures drawn/
"""


def evaluate(
    predicted: Annotated[
        Path,
        required(
            parser=as_path,
            help="What was found: a folder with results, a label image, or a folder of label images.",
            metavar="PREDICTED",
        ),
    ],
    truth: Annotated[
        Path,
        required(
            parser=as_path,
            help="What there is: a label image, or a folder of them, named after the images.",
            metavar="TRUTH",
        ),
    ],
    iou: Annotated[
        str, typer.Option(help="Smallest IoU of a match, above 0 and at most 1; several with commas.", metavar="LIST")
    ] = "0.5",
    sizes: Annotated[
        str | None,
        optional(
            help="Areas in px between size classes, with commas. Left out: thirds of the true objects.", metavar="LIST"
        ),
    ] = None,
    tag: Annotated[
        str | None,
        optional(help="Compare with the true objects of this class only (from LABELS_classes.json).", metavar="TAG"),
    ] = None,
    json_file: Annotated[
        Path | None, optional("--json", parser=as_path, help="Also write all figures to this file.", metavar="FILE")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(parser=as_path, help="Also draw what was hit, missed and false, a PNG a frame.", metavar="FOLDER"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    debug: Debug = False,
) -> None:
    """Compare what was found with the truth: precision, recall, F1, AP, PQ, AJI, by IoU and by size."""
    with guarded(debug):
        from sam2_fewshot.cli.console import terminal_display
        from sam2_fewshot.evaluation.figures import evaluate_frames
        from sam2_fewshot.evaluation.files import read_pairs
        from sam2_fewshot.evaluation.picture import write_picture
        from sam2_fewshot.images.stems import safe_stems
        from sam2_fewshot.output.assembly import run_content
        from sam2_fewshot.storage.files import check_free, replacing, replacing_together

        ious = _numbers(iou, "--iou", low=0.0, high=1.0)
        edges = sorted(_numbers(sizes, "--sizes", low=0.0, high=float("inf"))) if sizes else None
        check = partial(check_free, overwrite=overwrite)
        if json_file:
            check(json_file)
        with terminal_display() as display:
            pairs = list(read_pairs(predicted, truth, display, tag))
        drawn: list[Path] = []
        if pictures:
            drawn = [pictures / f"{stem}.png" for stem in safe_stems([pair.stem for pair in pairs])]
            for path in drawn:
                check(path)
        result = evaluate_frames([pair.frame for pair in pairs], ious, edges)
        # First of all: where it cannot be printed, no file stands in the way of another try.
        typer.echo("\n".join(table(result)))
        # All files or none, as far as the pictures go: with some of them there the same command would be refused. The
        # JSON file is written before them, and takes its name after them.
        with ExitStack() as stack:
            if json_file:
                content = run_content({"predicted": predicted, "truth": truth, **result.as_facts()})
                stack.enter_context(replacing(json_file)).write_bytes(content)
            if pictures:
                folder = stack.enter_context(replacing_together(pictures, check))
                for path, pair in zip(drawn, pairs, strict=True):
                    write_picture(folder / path.name, pair, ious[0])


def table(result: Evaluation) -> list[str]:
    """Return the figures as lines of text."""
    has_ap = result.average_precision is not None
    rows = [["IoU", "found", "hit", "false", "missed", "precision", "recall", "F1", "mean IoU", *["AP"] * has_ap]]
    for place, (iou, scores) in enumerate(zip(result.ious, result.scores, strict=True)):
        ap = [_share(result.average_precision[place])] if result.average_precision is not None else []
        rows.append([f"{iou:g}", str(scores.tp + scores.fp), *_figures(scores), *ap])
    frames = counted(len(result.frames), "frame")
    lines = [f"{frames}, {result.scores[0].tp + result.scores[0].fn} true objects", "", *_aligned(rows), ""]
    lines.append(
        f"Panoptic quality {_share(result.panoptic_quality)}, segmentation quality "
        f"{_share(result.segmentation_quality)}, AJI {_share(result.aji)}"
    )
    rows = [["area in px", "true", "hit", "false", "missed", "precision", "recall", "F1", "mean IoU"]]
    for size in result.sizes:
        span = f"{size.low:g} to {size.high:g}" if size.high != float("inf") else f"{size.low:g} and more"
        rows.append([span, str(size.scores.tp + size.scores.fn), *_figures(size.scores)])
    lines += ["", f"By size, at an IoU of {result.ious[0]:g}", "", *_aligned(rows)]
    if result.not_judged:
        many = were(result.not_judged, "true object")
        lines += ["", f"{many} marked as an example or correction, in whole or in part, and not evaluated."]
    return lines


def _figures(scores: Scores) -> list[str]:
    shares = (scores.precision, scores.recall, scores.f1, scores.mean_matched_iou)
    return [str(scores.tp), str(scores.fp), str(scores.fn), *map(_share, shares)]


def _share(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"  # NaN differs from itself


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _numbers(text: str, option: str, *, low: float, high: float) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(low < value <= high for value in values):
        most = f" and at most {high:g}" if high != float("inf") else ""
        raise SettingsError(f"{option} is {text!r}, but it must be numbers above {low:g}{most}, with commas between.")
    return values
