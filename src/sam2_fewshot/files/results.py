"""The files that a run writes into its output folder, and what of the user's own they must not be written over."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from sam2_fewshot.annotations.registry import FORMATS
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.corrections import CORRECTIONS, MARK_NEXT
from sam2_fewshot.images.addresses import is_zarr, remote
from sam2_fewshot.output.finished import OVERLAYS, ResultFile, files_of, overlay_path, results_in
from sam2_fewshot.output.journal import JOURNAL_FOLDER
from sam2_fewshot.output.notes import read_notes
from sam2_fewshot.output.pictures import drawn_of
from sam2_fewshot.report.page import REPORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence, Set

    from sam2_fewshot.annotations.registry import Format
    from sam2_fewshot.files.plan import Plan
    from sam2_fewshot.output.finished import Finished
    from sam2_fewshot.output.notes import Notes

_ALONE = ("run.json", REPORT, CORRECTIONS, MARK_NEXT)
_NAMES = {JOURNAL_FOLDER, OVERLAYS, *_ALONE, *(PurePosixPath(form.result).parts[0] for form in FORMATS.values())}
"""What lies in an output folder."""
_PLANE = re.compile(r"_z\d+_t\d+\.png$")
"""The end of the name of a plane's overlay, in small letters, behind the stem of its image."""


def result_files(plan: Plan) -> Iterator[ResultFile]:
    """Yield the files that a run will write, but for the journal's."""
    request = plan.request
    for name in _ALONE:
        yield ResultFile(request.out / name, name, of_image=False)
    frames = []
    for frame in plan.frames:
        image = plan.images[frame.location.xy]
        overlay = overlay_path(request.out, image.stem, frame.location, is_stack=image.is_stack)
        frames.append((image.stem, overlay.name))
    yield from files_of(request.out, frames, request.write)


def check_results(plan: Plan) -> None:
    """Refuse a run that would write over what is the user's own, or put its results among it.

    Raises
    ------
    InputError
        If a result belongs where an image or the examples are, behind a link, or where a file is that no earlier run
        wrote.
    """
    files = list(result_files(plan))
    _refuse_links(plan.request.out, files)
    _refuse_among_inputs(plan, files)
    _refuse_to_overwrite(plan.request.out, files)


def _refuse_among_inputs(plan: Plan, files: Sequence[ResultFile]) -> None:
    real = cache(os.path.realpath)
    images = [part for image in plan.images for part in (image.path, *image.header.parts)]
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


def _refuse_links(out: Path, files: Sequence[ResultFile]) -> None:
    """Refuse a run that writes or deletes results outside of the output folder, which itself may be a link."""
    # Whoever edits what an earlier run has noted may lead anywhere else.
    earlier = {PurePosixPath(key).parent.as_posix() for key in _earlier(out)} & _NAMES
    written = {file.path.parent for file in files} | {out / name for name in earlier}
    real = os.path.realpath(out)
    for folder in sorted(written):
        target = Path(os.path.realpath(folder))
        if not target.is_relative_to(real):
            raise InputError(
                f"{folder} is a link to {target}, where results would take the place of files that may be your own. "
                "Remove the link, and move results of earlier runs back from there; if the results belong on another "
                "disk, give a folder there with -o."
            )


def _refuse_to_overwrite(out: Path, files: Sequence[ResultFile]) -> None:
    if read_notes(out / JOURNAL_FOLDER).lack_results:
        return  # all that is there may be its own
    earlier = _earlier(out)
    is_there = cache(Path.is_dir)
    new = [file.path for file in files if file.key.casefold() not in earlier and is_there(file.path.parent)]
    users = [path for path in new if os.path.lexists(path)]
    if users:
        more, them = (f" and {len(users) - 1} more result files are", "them") if len(users) > 1 else (" is", "it")
        raise InputError(
            f"{users[0]}{more} there already, but not from an earlier run in {out}, and would be written over. Move "
            f"{them} away, or give another folder with -o."
        )


def to_note(plan: Plan, before: Finished | None, noted: Sequence[str]) -> list[str]:
    """Return what to note of the files that a run writes, with those of earlier runs, which may be there still.

    Parameters
    ----------
    plan
        Of the run.
    before
        What ``run.json`` says as the run begins.
    noted
        What the last run noted.
    """
    return sorted({file.key for file in result_files(plan)} | _listed(before) | set(noted))


def earlier_results(out: Path, notes: Notes, before: Finished | None, now: Set[Path] = frozenset()) -> Set[Path]:
    """Return where files of runs are or may be that stand for images, those of killed runs too; but for overlays `now`.

    They are known from ``run.json``, and from the notes as far as runs began to put them in place: what only was to be
    written is the user's if it is there. Notes do not say the planes of overlays, which are written earlier, so of
    these that counts which this program has drawn.
    """
    found = set() if before is None else {file.path for file in before.files()}
    # A path that was edited into the notes and leads elsewhere is no format's.
    found |= {out / key for key in notes.written if any(_left_by(form, out, key) for form in FORMATS.values())}
    noted = {key.casefold() for key in notes.results}
    overlays = set((out / OVERLAYS).glob("*.png")) - now  # which need not be looked into
    return found.union(path for path in overlays if _overlay_keys(path.name) & noted and drawn_of(path))


def _left_by(form: Format, out: Path, key: str) -> bool:
    """Return whether a run may have left a file of a format, or a folder, which shows whose it is."""
    if form.path(Path(), PurePath(key).stem).as_posix() != key:
        return False
    is_own = form.optional("is_own")
    return is_own is None or not (out / key).is_dir() or bool(is_own(out / key))


def _overlay_keys(name: str) -> Set[str]:
    """Return the keys that an overlay, or another file or folder of that name beside them, may have."""
    own = f"{OVERLAYS}/{name.casefold()}"
    return {own, own.removesuffix(".png"), _PLANE.sub("", own)}


def _earlier(out: Path) -> Set[str]:
    """Return the keys of what earlier runs have written, as far as that is known, in small letters."""
    return {key.casefold() for key in _listed(results_in(out)).union(read_notes(out / JOURNAL_FOLDER).results)}


def _listed(finished: Finished | None) -> frozenset[str]:
    """Return the keys of the results that ``run.json`` lists."""
    return frozenset() if finished is None else frozenset((*_ALONE, *(file.key for file in finished.files())))


def is_output(folder: Path) -> bool:
    """Return whether a run has written into a folder."""
    return remote(folder) is None and ((folder / JOURNAL_FOLDER).is_dir() or bool(_known(folder)))


def results_among(paths: Iterable[Path]) -> list[Path]:
    """Return those of some paths that runs have written into output folders: files, and folders of them."""
    earlier = cache(_known)
    return [path for path in paths if remote(path) is None and _is_result(Path(os.path.abspath(path)), earlier)]  # noqa: PTH100


def _known(folder: Path) -> Set[str]:
    """Return what :func:`_earlier` does, nothing where it cannot be read: nothing is written into this folder."""
    try:
        return _earlier(folder)
    except InputError:
        return set()


def _is_result(path: Path, earlier: Callable[[Path], Set[str]]) -> bool:
    for place, folder in enumerate(reversed(path.parents), 1):
        if path.parts[place] in _NAMES:
            name, *below = (part.casefold() for part in path.parts[place : place + 2])
            keys = earlier(folder)
            of_image = _overlay_keys("/".join(below)) if name == OVERLAYS and below else {"/".join((name, *below))}
            is_folder = not below and any(key.startswith(f"{name}/") for key in keys)
            if of_image & keys or is_folder or (name == JOURNAL_FOLDER and keys):
                return True
    return False
