"""What the results of a plan are made from: it decides which results of earlier runs are taken over."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sam2_fewshot import __version__
from sam2_fewshot.errors import SettingsError
from sam2_fewshot.files.earlier import given_of
from sam2_fewshot.images.addresses import image_title
from sam2_fewshot.images.display import read_text
from sam2_fewshot.images.registry import frame_fingerprint, told_apart
from sam2_fewshot.output.finished import results_in
from sam2_fewshot.output.journal import JOURNAL_FOLDER
from sam2_fewshot.output.notes import read_notes
from sam2_fewshot.storage.digests import common_part, examples_part

if TYPE_CHECKING:
    from pathlib import Path

    from sam2_fewshot.files.plan import Plan
    from sam2_fewshot.files.request import Request
    from sam2_fewshot.segmenter import FewShotSegmenter
    from sam2_fewshot.settings import Settings


def display_text(request: Request) -> str:
    """Return the text of the file that says how channels are displayed; empty where there is none."""
    return "" if request.channels is None else read_text(request.channels)


class MadeFrom(NamedTuple):
    """What results are made from.

    Parameters
    ----------
    inputs
        To note for the next run.
    images
        Those that are given, as ``run.json`` has them.
    common
        What all frames depend on, in a string.
    fingerprints
        Of each image's frames.
    """

    inputs: dict[str, object]
    images: list[dict[str, object]]
    common: str
    fingerprints: list[str]


def made_from(plan: Plan, segmenter: FewShotSegmenter) -> MadeFrom:
    """Return what the results are made from."""
    marked = plan.signatures
    apart = told_apart(marked)
    places = [(item.exemplar, [apart[item.location.xy], item.location.z, item.location.time]) for item in plan.placed]
    display = display_text(plan.request)
    settings = plan.request.settings
    saved = None if plan.saved is None else plan.saved.sha256
    extra = {"channels": display} if saved is None else {"channels": display, "object_model": saved}
    common = common_part(__version__, settings, segmenter.model_sha256, places, extra)
    inputs: dict[str, object] = {
        "settings": settings.model_dump(mode="json"),
        "version": __version__,
        "model": segmenter.model_sha256,
        "examples": examples_part(places),
        "channels": display,
        "object_model": saved,
    }
    own = [frame_fingerprint("", each) for each in marked]
    keys = [image_title(image.path.as_posix(), image.position) for image in plan.images]
    inputs["images"] = dict(zip(keys, own, strict=True))
    given = given_of(plan.images, marked, (frame.location.xy for frame in plan.frames))
    prints = [frame_fingerprint(common, each) for each in apart]
    return MadeFrom(inputs, [each._asdict() for each in given], common, prints)


_CHOICE = ("threshold_mode", "similarity_threshold", "top_percent")


def taken_from(plan: Plan, segmenter: FewShotSegmenter, earlier: Path) -> list[list[str]]:
    """Return the fingerprints of frames whose threshold earlier runs chose, a list a choice; none where of no use.

    Their records hold what lies below the threshold too, so a fixed threshold can be applied to them.

    Parameters
    ----------
    plan, segmenter
        As for :func:`made_from`.
    earlier
        The output folder: ``run.json`` tells of the run that made the results, the notes of the last one, which may
        have been killed.

    Raises
    ------
    InputError
        If one of them cannot be read at the moment.
    """
    settings = plan.request.settings
    if settings.threshold_mode != "fixed":
        return []
    results, notes = results_in(earlier), read_notes(earlier / JOURNAL_FOLDER)
    choices: list[Settings] = []
    for before in ({} if results is None else results.facts["settings"], notes.settings):
        with suppress(SettingsError):  # of another version, or edited
            choice = settings.changed({name: before[name] for name in _CHOICE if name in before})
            if choice.threshold_mode != "fixed" and choice not in choices:
                choices.append(choice)
    requests = [replace(plan.request, settings=choice) for choice in choices]
    return [made_from(replace(plan, request=request), segmenter).fingerprints for request in requests]
