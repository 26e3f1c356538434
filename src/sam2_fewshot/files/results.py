"""The files that a run writes into its output folder, and what of the user's own they must not be written over."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.annotations.registry import FORMATS
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.corrections import CORRECTIONS, MARK_NEXT
from sam2_fewshot.images.addresses import is_zarr, remote
from sam2_fewshot.output.finished import read_finished, remembered
from sam2_fewshot.output.journal import JOURNAL_FOLDER
from sam2_fewshot.output.pictures import overlay_path
from sam2_fewshot.report import REPORT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any

    from sam2_fewshot.annotations.registry import Format
    from sam2_fewshot.files.plan import Plan

_OVERLAYS = "overlays"
_ALONE = ("run.json", REPORT, CORRECTIONS, MARK_NEXT)


class ResultFile(NamedTuple):
    """A file that a run writes.

    Parameters
    ----------
    path
        Where it belongs.
    key
        What it is noted as in the journal: its path in the output folder; of overlays, of which an image may have
        many, without the plane.
    of_image
        Whether it is named after an image.
    """

    path: Path
    key: str
    of_image: bool


def result_files(plan: Plan) -> Iterator[ResultFile]:
    """Yield the files that a run will write, but for the journal's."""
    request = plan.request
    for name in _ALONE:
        yield ResultFile(request.out / name, name, of_image=False)
    stems = dict.fromkeys(plan.stems[frame.location.xy] for frame in plan.frames)
    for form in _formats(request.write):
        for stem in stems if form.per_image else [""]:
            yield ResultFile(form.path(request.out, stem), _key(form, stem), form.per_image)
    for frame in plan.frames:
        image, stem = plan.images[frame.location.xy], plan.stems[frame.location.xy]
        record = FrameRecord("", stem, frame.location, frame.shape, image.size_z, image.size_t)
        yield ResultFile(overlay_path(request.out, record), f"{_OVERLAYS}/{stem}", of_image=True)


def check_results(plan: Plan) -> None:
    """Refuse a run that would write over what is the user's own, or put its results among it.

    Raises
    ------
    InputError
        If a result belongs where an image or the examples are, or where a file is that no earlier run wrote.
    """
    files = list(result_files(plan))
    _refuse_among_inputs(plan, files)
    _refuse_to_overwrite(plan.request.out, files)


def _refuse_among_inputs(plan: Plan, files: Sequence[ResultFile]) -> None:
    real = cache(os.path.realpath)
    images = [part for image in plan.images for part in (image.path, *image.source.header.parts)]
    given = {real(path): "images" for path in [*images, *plan.request.images] if remote(path) is None}
    if plan.request.examples is not None:
        given[real(plan.request.examples)] = "examples"
    for file in files:
        folder = real(file.path.parent)
        if what := given.get(os.path.join(folder, file.path.name)):  # noqa: PTH118  (a Path for each takes long)
            raise InputError(
                f"The results would be written over {file.path}, which is among the {what} of this run. Give another "
                "folder with -o."
            )
        if file.of_image and (what := given.get(folder)):
            raise InputError(
                f"The results would be written into {file.path.parent}, where the {what} of this run are, and the "
                f"next run would take them for {what}. Give another folder with -o."
            )
    out = Path(real(plan.request.out))
    inside = next((place for place in (out, *out.parents) if str(place) in given and is_zarr(place)), None)
    if inside is not None:
        raise InputError(
            f"The results would be written into {inside}, which is among the {given[str(inside)]} of this run. Give "
            "another folder with -o."
        )


def _refuse_to_overwrite(out: Path, files: Sequence[ResultFile]) -> None:
    earlier = _earlier(out)
    if earlier is None:
        return
    is_there = cache(Path.is_dir)
    new = [file.path for file in files if file.key.casefold() not in earlier and is_there(file.path.parent)]
    users = [path for path in new if os.path.lexists(path)]
    if users:
        more, them = (f" and {len(users) - 1} more result files are", "them") if len(users) > 1 else (" is", "it")
        raise InputError(
            f"{users[0]}{more} there already, but not from an earlier run in {out}, and would be written over. Move "
            f"{them} away, or give another folder with -o."
        )


def note(plan: Plan) -> list[str]:
    """Return what to remember of the files that a run writes, with those of earlier runs, which may be there still."""
    now = {file.key for file in result_files(plan)}
    return sorted(now.union(remembered(plan.request.out / JOURNAL_FOLDER) or ()))


def _earlier(out: Path) -> Collection[str] | None:
    """Return the keys of what earlier runs have written, in small letters; None where all that is there may be."""
    noted = remembered(out / JOURNAL_FOLDER)
    if noted is None and (out / JOURNAL_FOLDER).is_dir():
        return None  # of a version that took no notes
    return {key.casefold() for key in [*(noted or ()), *_listed(out)]}


def _listed(out: Path) -> Iterator[str]:
    """Yield the keys of the results that ``run.json`` lists."""
    facts = _facts(out)
    if facts is None:
        return
    yield from _ALONE
    stems = [str(frame.get("stem")) for frame in facts["frames"]]
    written = facts.get("written")
    for form in _formats(written if isinstance(written, list) else ()):
        yield from (_key(form, stem) for stem in (stems if form.per_image else [""]))
    yield from (f"{_OVERLAYS}/{stem}" for stem in stems)


def _facts(out: Path) -> Mapping[str, Any] | None:
    try:
        return read_finished(out).facts
    except InputError:
        return None


def _formats(extra: Collection[str]) -> list[Format]:
    return [form for form in FORMATS.values() if form.always or form.name in extra]


def _key(form: Format, stem: str) -> str:
    return form.path(Path(), stem).as_posix()
