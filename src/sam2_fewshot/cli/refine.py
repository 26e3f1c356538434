"""``sam2-fewshot refine``: repeat a run with corrections from its report or with other settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sam2_fewshot.cli.console import guarded
from sam2_fewshot.cli.options import (
    Debug,
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
from sam2_fewshot.errors import DONE, FAILED

if TYPE_CHECKING:
    from sam2_fewshot.files.request import Request

EPILOG = """
[bold]Examples[/bold]

Mark objects as right or wrong in results/report.html, press Export, and:

  sam2-fewshot refine results ~/Downloads/corrections.json

The same, when the results lie where they were made:

  sam2-fewshot refine ~/Downloads/corrections.json

Without a browser: in a copy of results/mark_next.json, put right or wrong in place of unanswered, and:

  sam2-fewshot refine results answered.json

Another threshold; finished frames are not searched a second time:

  sam2-fewshot refine results --similarity-threshold 0.35

Corrected once, and used for other images:

  sam2-fewshot refine day1/results corrections.json --save-model cells.npz
  sam2-fewshot segment day2/*.tif --object-model cells.npz -o day2/results

Results of an object model, which are corrected together with the examples that it was learned from:

  sam2-fewshot refine results corrections.json --examples a.geojson --training-tag Mitosis --negative-tag Debris
"""


def refine(
    paths: Annotated[
        list[Path],
        required(
            parser=as_path,
            help="The folder with the results, and files that its report.html has exported, which say where it was "
            "if it is left out, or mark_next.json with answers.",
            metavar="OUT|CORRECTIONS.json...",
        ),
    ],
    out: Annotated[
        Path | None,
        optional(
            "--out",
            "-o",
            parser=as_path,
            help="Folder for the new results. Left out: beside the old ones, with -refined after the name.",
            metavar="FOLDER",
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        optional(
            help="The images, if they lie elsewhere now. May be given more than once.",
            metavar="IMAGES",
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        optional(
            parser=as_path,
            help="The first examples, if they lie elsewhere now, or if the results are of an object model.",
            metavar="PATH",
        ),
    ] = None,
    training_tag: Annotated[
        str | None,
        optional(help="With --examples: learn from those with this tag or class. Left out: as before.", metavar="TAG"),
    ] = None,
    negative_tag: Annotated[
        str | None,
        optional(
            help="With --examples: tag or class of those of what is not wanted. Left out: as before.", metavar="TAG"
        ),
    ] = None,
    boxes: Annotated[
        bool,
        typer.Option("--boxes", help="With --examples: rectangles among them are boxes around objects."),
    ] = False,
    examples_on: Annotated[
        str | None,
        optional(
            help="Name of the image that the examples of a single file lie on, if it is another now.", metavar="IMAGE"
        ),
    ] = None,
    channels: Annotated[Path | None, channels_option(left_out="Left out: as before.")] = None,
    save_model: Annotated[Path | None, save_model_option()] = None,
    device: Annotated[
        str | None, optional(help="auto, cpu, cuda, cuda:1 or mps. Left out: as before.", metavar="NAME")
    ] = None,
    scheduler: Annotated[str | None, scheduler_option()] = None,
    config: Annotated[
        Path | None, optional(parser=as_path, help="YAML file with settings to change.", metavar="YAML")
    ] = None,
    debug: Debug = False,
    *,
    settings: dict[str, str],
) -> None:
    """Learn from what was marked right or wrong in report.html, and repeat the search.

    Images, examples and settings are those of the results, with the corrections as further examples; settings that are
    given here are changed. What was marked right is part of the new results.
    """
    with guarded(debug):
        from sam2_fewshot.cli.console import terminal_display
        from sam2_fewshot.cli.segment import report
        from sam2_fewshot.errors import InputError
        from sam2_fewshot.files.run import run

        if not (settings or config or channels or save_model) and all(path.is_dir() for path in paths):
            raise InputError(
                "Nothing would change: give a file that report.html has exported, or a setting such as "
                "--similarity-threshold 0.3."
            )
        tags = {"training_tag": training_tag, "negative_tag": negative_tag}
        request = _request(paths, out)
        request = _with_examples(replace(request, channels=channels or request.channels), examples, tags, boxes)
        request = replace(
            request,
            images=expand(images) if images else request.images,
            examples_on=examples_on or request.examples_on,
            save_model=save_model,
            device=device or request.device,
            settings=read_settings(settings, config, request.settings.model_dump()),
        )
        with terminal_display() as display:
            display.say(f"Results go to {request.out}.")
            summary = run(request, display, scheduler=scheduler)
        report(summary, request.settings)
    raise typer.Exit(DONE if summary.complete else FAILED)


refine_command = with_settings(refine, left_out="Left out: as before.")


def _with_examples(request: Request, examples: Path | None, tags: dict[str, str | None], boxes: bool) -> Request:
    """Return the request with examples given anew; what is not said of them is as before."""
    from sam2_fewshot.errors import InputError

    changes: dict[str, Any] = {name: tag for name, tag in tags.items() if tag is not None}
    changes |= {"boxes": True} if boxes else {}
    if examples:
        if request.object_model and request.channels is None:
            _refuse_other_display(request.object_model)
        return replace(request, examples=examples, object_model=None, **changes)
    if changes:
        option = next(iter(changes)).replace("_", "-")
        raise InputError(
            f"--{option} says how the examples are to be read, and without --examples they are read as before; give "
            "their file with --examples as well."
        )
    return request


def _refuse_other_display(model: Path) -> None:
    """Refuse to learn anew, with the usual display, what was learned from channels that were displayed otherwise."""
    from sam2_fewshot.errors import InputError
    from sam2_fewshot.object_model import read_object_model

    try:
        channels = read_object_model(model).channels
    except InputError:  # it is gone or another, so nothing is known of it
        return
    if channels:
        raise InputError(
            f"These results were made with the object model {model}, which says how channels are displayed; examples "
            "do not. Give the file that was given with --channels when it was learned."
        )


def _request(paths: list[Path], out: Path | None) -> Request:
    """Return the request that made the results, with further corrections."""
    from sam2_fewshot.errors import InputError
    from sam2_fewshot.files.corrections import results_folder
    from sam2_fewshot.files.request import request_again

    for path in paths:
        if not path.exists():
            raise InputError(f"There is no file or folder {path}; check its name.")
    folders = [path for path in paths if path.is_dir()]
    files = [path for path in paths if not path.is_dir()]
    if len(folders) > 1:
        raise InputError(f"{folders[0]} and {folders[1]} are both folders; give one folder with results.")
    if not folders:
        named = {folder for path in files if (folder := results_folder(path))}
        if len(named) != 1 or not Path(*named).is_dir():
            where = f" ({', '.join(sorted(named))} is not there)" if len(named) == 1 else ""
            raise InputError(
                f"It is not clear which results {files[0].name} is for{where}; give their folder as well: "
                f"sam2-fewshot refine OUT {files[0].name}."
            )
        folders = [Path(*named)]
    request = request_again(folders[0], out)
    new = [path for path in files if not any(map(path.samefile, request.corrections))]  # it may have been saved there
    return replace(request, corrections=[*request.corrections, *new])
