"""``sam2-fewshot refine``: repeat a run with corrections from its report or with other settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sam2_fewshot.cli.console import guarded
from sam2_fewshot.cli.options import Debug, as_path, expand, optional, read_settings, required, with_settings
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
            help="The images, in the same order, if they lie elsewhere now. May be given more than once.",
            metavar="IMAGES",
        ),
    ] = None,
    examples: Annotated[
        Path | None, optional(parser=as_path, help="The first examples, if they lie elsewhere now.", metavar="PATH")
    ] = None,
    examples_on: Annotated[
        str | None,
        optional(
            help="Name of the image that the examples of a single file lie on, if it is another now.", metavar="IMAGE"
        ),
    ] = None,
    device: Annotated[
        str | None, optional(help="auto, cpu, cuda, cuda:1 or mps. Left out: as before.", metavar="NAME")
    ] = None,
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

        if not (settings or config) and all(path.is_dir() for path in paths):
            raise InputError(
                "Nothing would change: give a file that report.html has exported, or a setting such as "
                "--similarity-threshold 0.3."
            )
        request = _request(paths, out)
        request = replace(
            request,
            images=expand(images) if images else request.images,
            examples=examples or request.examples,
            object_model=None if examples else request.object_model,
            examples_on=examples_on or request.examples_on,
            device=device or request.device,
            settings=read_settings(settings, config, request.settings.model_dump()),
        )
        with terminal_display() as display:
            display.say(f"Results go to {request.out}.")
            summary = run(request, display)
    report(summary)
    raise typer.Exit(DONE if summary.complete else FAILED)


refine_command = with_settings(refine)


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
    return replace(request, corrections=[*request.corrections, *files])
