"""``sam2-fewshot segment``: detect objects like the examples in images, and write the results."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated

import typer

from sam2_fewshot.annotations.registry import ON_REQUEST, noted
from sam2_fewshot.cli.console import guarded, print_line
from sam2_fewshot.cli.options import (
    as_path,
    channels_option,
    expand,
    optional,
    read_settings,
    required,
    save_model_option,
    scheduler_option,
    with_settings,
)
from sam2_fewshot.errors import DONE, FAILED, counted

if TYPE_CHECKING:
    from sam2_fewshot.files.run import Summary
    from sam2_fewshot.settings import Settings

_WHERE = "What to look at"
_WHAT = "What to look for"
_HOW = "With what"

_NAMED = 3

EPILOG = """
[bold]Examples[/bold]

Marked in a label image; all images of a plate are searched:

  sam2-fewshot segment plate/*.tif --examples marked/A01_labels.tif -o results

Marked in QuPath in two classes, one wanted and one not:

  sam2-fewshot segment a.tif --examples a.geojson --training-tag Mitosis --negative-tag Debris -o out

A NimbusImage export; the third position at time points 1 to 10, stricter than usual:

  sam2-fewshot segment *.ome.tif --examples export.json --batch-xy 3 --batch-time 1-10
  --similarity-threshold 0.7 -o results

Learn once, and use it for other images:

  sam2-fewshot segment day1/*.tif --examples day1/A01.geojson --save-model cells.npz -o day1/results
  sam2-fewshot segment day2/*.tif --object-model cells.npz -o day2/results

A trial on two images of many, with sizes like the examples' alone; without --batch-xy the same command then goes on
with the rest:

  sam2-fewshot segment "day1/*.png" --examples marked/ --batch-xy 1-2 --sizes similar -o trial
"""


def segment(
    images: Annotated[
        list[str], required(help="Image files, folders, or patterns; their order is XY.", metavar="IMAGES")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", parser=as_path, help="Folder for the results.", metavar="FOLDER", show_default=False
        ),
    ],
    examples: Annotated[
        Path | None,
        optional(
            parser=as_path,
            help="The marked objects: a label image, OME-Zarr labels, a QuPath GeoJSON, ImageJ ROIs, COCO or a "
            "NimbusImage JSON export; for several images, a folder of those, named after the images.",
            metavar="PATH",
            panel=_WHAT,
        ),
    ] = None,
    boxes: Annotated[
        bool,
        typer.Option(
            "--boxes",
            help="Rectangles among the examples are boxes around objects, and SAM 2 outlines what is in them.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    examples_on: Annotated[
        str | None,
        optional(
            help="Name of the image that the examples of a single file lie on, with its folder where several have that "
            "name. Left out: the image that the file is named after.",
            metavar="IMAGE",
            panel=_WHAT,
        ),
    ] = None,
    object_model: Annotated[
        Path | None,
        optional(
            parser=as_path,
            help="What an earlier run has learned and saved with --save-model; instead of --examples.",
            metavar="FILE.npz",
            panel=_WHAT,
        ),
    ] = None,
    save_model: Annotated[Path | None, save_model_option(_WHAT)] = None,
    training_tag: Annotated[
        str | None,
        optional(
            help="Learn from the examples with this tag or class. Left out: from all but the negative ones.",
            metavar="TAG",
            panel=_WHAT,
        ),
    ] = None,
    negative_tag: Annotated[
        str | None, optional(help="Tag or class of examples of what is not wanted.", metavar="TAG", panel=_WHAT)
    ] = None,
    tag: Annotated[
        list[str] | None,
        optional(
            help="Tag of the found objects, may be given more than once. Left out: the training tag, or object where "
            "none is given.",
            metavar="TAG",
            panel=_WHAT,
        ),
    ] = None,
    batch_xy: Annotated[
        str | None,
        optional(
            help='Which images or positions: "1-3, 5", "1-20:2", "all", or by name: "B0*". Default all.',
            metavar="RANGE",
            panel=_WHERE,
        ),
    ] = None,
    batch_z: Annotated[
        str | None, optional(help="Which slices, counted from 1. Default all.", metavar="RANGE", panel=_WHERE)
    ] = None,
    batch_time: Annotated[
        str | None, optional(help="Which time points, counted from 1. Default all.", metavar="RANGE", panel=_WHERE)
    ] = None,
    channels: Annotated[Path | None, channels_option(_WHERE)] = None,
    model: Annotated[
        str,
        optional(
            help="A checkpoint's name or path; auto takes the best one on this machine. Default auto.",
            metavar="NAME",
            panel=_HOW,
        ),
    ] = "auto",
    device: Annotated[
        str, optional(help="auto, cpu, cuda, cuda:1 or mps. Default auto.", metavar="NAME", panel=_HOW)
    ] = "auto",
    scheduler: Annotated[str | None, scheduler_option(_HOW)] = None,
    write: Annotated[
        str | None,
        optional(help=f"Further result files, separated by commas: {noted(ON_REQUEST)}.", metavar="NAMES", panel=_HOW),
    ] = None,
    config: Annotated[
        Path | None,
        optional(
            parser=as_path,
            help="YAML file with settings; an option given here counts before it.",
            metavar="YAML",
            panel=_HOW,
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where a defect of the program is.", rich_help_panel=_HOW)
    ] = False,
    *,
    settings: dict[str, str],
) -> None:
    """Find every object that looks like the marked ones.

    Results: report.html, annotations.json (NimbusImage), geojson/ (QuPath), detections.csv, labels/, overlays/,
    run.json and mark_next.json.
    """
    with guarded(debug):
        from sam2_fewshot.cli.console import terminal_display
        from sam2_fewshot.files.request import Request
        from sam2_fewshot.files.run import run
        from sam2_fewshot.object_model import read_object_model

        # The settings that the examples were learned with hold for this run too, unless others are given.
        learned_with = read_object_model(object_model).settings if object_model and not examples else None
        request = Request(
            images=expand(images),
            examples=examples,
            out=out,
            training_tag=training_tag,
            negative_tag=negative_tag,
            tags=tag or (),
            model=model,
            device=device,
            batch_xy=batch_xy,
            batch_z=batch_z,
            batch_time=batch_time,
            channels=channels,
            settings=read_settings(settings, config, learned_with),
            write=[name.strip() for name in (write or "").split(",") if name.strip()],
            object_model=object_model,
            save_model=save_model,
            boxes=boxes,
            examples_on=examples_on,
        )
        with terminal_display() as display:
            summary = run(request, display, scheduler=scheduler)
        report(summary, request.settings)
    raise typer.Exit(DONE if summary.complete else FAILED)


segment_command = with_settings(segment)


def report(summary: Summary, settings: Settings) -> None:
    """Print the summary of a run with these settings to stdout, and what could not be done to stderr."""
    from sam2_fewshot.runner.progress import duration

    if summary.assembled and summary.done:
        objects, candidates = counted(summary.found, "object"), counted(summary.candidates, "candidate")
        print_line(f"Found {objects} among {candidates} on {counted(summary.done, 'frame')}.")
        if summary.counts.total > summary.found:
            print_line(f"With what you marked: {summary.counts}.")
        if not summary.found:
            print_line(_nothing_found(summary, settings))
        times = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in summary.seconds.items())
        print_line(f"Time: {times}.")
        print_line(f"Results: {summary.out.resolve()}")
        print_line(f"Look at them, and correct them: {summary.out.resolve() / 'report.html'}")
        if summary.mark_next:
            print_line(_what_to_mark(summary))
    if summary.complete:
        return
    for failure in summary.failures:
        print_line(f"Error: {failure.what}: {failure.sentence}", err=True)
    outcome = "Stopped" if summary.interrupted else "Not all could be done"
    finished = f"{summary.done} of {summary.frames} frames are finished and kept; " if summary.done else ""
    print_line(f"{outcome}: {finished}the same command goes on from there.", err=True)


def _what_to_mark(summary: Summary) -> str:
    from sam2_fewshot.files.corrections import MARK_NEXT

    places = summary.mark_next
    named = "; ".join(f"{place.frame} (x {place.x:.0f}, y {place.y:.0f})" for place in places[:_NAMED])
    first = "" if len(places) <= _NAMED else f" The report begins with all {len(places)}, and {MARK_NEXT} has them."
    return f"To improve, mark as right or wrong what lies at: {named}.{first}"


def _nothing_found(summary: Summary, settings: Settings) -> str:
    from sam2_fewshot.methods.selection import to_find_more
    from sam2_fewshot.report.advice import what_helps

    if summary.candidates:
        of = [(bool(record.below), any(not mark.negative for mark in record.examples)) for record in summary.records()]
        what = "Nothing resembles the examples enough."
        lower = to_find_more(settings, "--similarity-threshold", "--threshold-mode").capitalize()
        tail = ", and see in overlays/ whether the examples lie where they should."
        if of and all(marked for _, marked in of):
            what = "Nothing beyond the marked objects was found."
            tail = " if there are more."
        return f"{what} {what_helps(lower + tail, is_below=any(below for below, _ in of))}"
    return (
        "Nothing was even proposed. See in overlays/ whether the examples lie where they should, and try a smaller "
        "--min-mask-area; with --method grid, more --points-per-side, and lower --predicted-iou-gate and "
        "--stability-gate."
    )
