"""Which files a run writes for the frames in its output folder: what it may write over, and what it deletes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sam2_fewshot.annotations.registry import FORMATS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sam2_fewshot.annotations.registry import Format
    from sam2_fewshot.records import Location

OVERLAYS = "overlays"


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


def files_of(out: Path, frames: Sequence[tuple[str, str]], extra: Collection[str]) -> Iterator[ResultFile]:
    """Yield the files that stand for some frames.

    Parameters
    ----------
    out
        The output folder.
    frames
        The stem of each frame's image, and the name of its overlay.
    extra
        Names of the formats that were asked for besides those that every run has.
    """
    stems = dict.fromkeys(stem for stem, _ in frames)
    for form in formats(extra):
        for stem in stems if form.per_image else [""]:
            yield ResultFile(form.path(out, stem), form.path(Path(), stem).as_posix(), form.per_image)
    for stem, overlay in frames:
        yield ResultFile(out / OVERLAYS / overlay, f"{OVERLAYS}/{stem}", of_image=True)


def formats(extra: Collection[str]) -> list[Format]:
    """Return the formats that every run has, and further ones by their names."""
    return [form for form in FORMATS.values() if form.always or form.name in extra]


def overlay_path(out: Path, stem: str, location: Location, *, is_stack: bool) -> Path:
    """Return where a frame's overlay belongs; planes of a stack are named by Z and Time, counted from 1."""
    plane = f"_Z{location.z + 1}_T{location.time + 1}" if is_stack else ""
    return out / OVERLAYS / f"{stem}{plane}.png"
