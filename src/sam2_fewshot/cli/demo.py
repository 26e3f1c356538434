"""``sam2-fewshot demo``: segment the bundled sample, and evaluate the detections with its true objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sam2_fewshot.cli.console import guarded, print_line
from sam2_fewshot.cli.options import Debug, as_path
from sam2_fewshot.errors import DONE, FAILED

_IOU = 0.5


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", parser=as_path, help="Folder for the results.", metavar="FOLDER")
    ] = Path("sam2-fewshot-demo"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", metavar="NAME")] = "auto",
    debug: Debug = False,
) -> None:
    """Try it: find the nuclei of a bundled microscopy image from eight examples.

    Uses the small model that comes with the program, so nothing is downloaded, and reports how well it did.
    """
    with guarded(debug):
        from sam2_fewshot.backbones import MICRO
        from sam2_fewshot.cli.console import terminal_display
        from sam2_fewshot.cli.segment import report
        from sam2_fewshot.evaluation.figures import evaluate_frames
        from sam2_fewshot.evaluation.files import read_pairs
        from sam2_fewshot.files.request import Request
        from sam2_fewshot.files.run import run
        from sam2_fewshot.protocols import Quiet
        from sam2_fewshot.sample import sample

        files = sample()
        request = Request(
            images=[files.image],
            examples=files.examples,
            out=out,
            tags=["nucleus"],
            model=MICRO.name,
            device=device,
        )
        print_line("Looking for nuclei in a fluorescence image, with the default settings.", err=True)
        with terminal_display() as display:
            summary = run(request, display)
        report(summary, request.settings)
        if summary.complete:
            pairs = read_pairs(summary.out, files.truth, Quiet())
            result = evaluate_frames([pair.frame for pair in pairs], (_IOU,))
            (scores,) = result.scores
            total = scores.tp + scores.fn
            print_line(
                f"Precision {scores.precision:.2f}, recall {scores.recall:.2f}, F1 {scores.f1:.2f}: of {total} "
                f"nuclei that were not among the {result.not_judged} examples, {scores.tp} were found, and {scores.fp} "
                f"of the detections are wrong (one is right where it shares an IoU of at least {_IOU} with a nucleus)."
            )
            print_line(f"Look at {summary.out.resolve() / 'overlays' / 'nuclei.png'}")
    raise typer.Exit(DONE if summary.complete else FAILED)
