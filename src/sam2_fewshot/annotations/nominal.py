"""The images that annotations speak of, where these are all that is at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_fewshot.annotations.examples import companion_of, format_of, marked_files
from sam2_fewshot.annotations.named import UNKNOWN, images_of_run, nominal_header, output_of
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.addresses import composed, holds_zarr
from sam2_fewshot.images.image_set import images_of, stems_of
from sam2_fewshot.images.registry import example_stems
from sam2_fewshot.images.source import kind_of
from sam2_fewshot.images.stems import safe_stems
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.images.image_set import ImageSet
    from sam2_fewshot.images.source import Header
    from sam2_fewshot.protocols import Progress


@dataclass(slots=True)
class _NoPixels:
    """An image without pixels; a :class:`~sam2_fewshot.images.source.PixelSource`."""

    header: Header

    def planes(self, z: int, t: int) -> Iterator[NDArray[Any]]:
        """Refuse."""
        raise InputError(f"The pixels of {self.header.path.name} are not at hand.")


def nominal_images(path: Path, progress: Progress | None = None) -> ImageSet:
    """Return the images that a file or folder of annotations speaks of.

    A label image and an OME-Zarr have the size of their image and COCO tells it; of the others nothing is known, so
    they get :data:`~sam2_fewshot.annotations.named.UNKNOWN`. An image is called what the file says, or else like
    the file. In a folder of a run's results, such as ``geojson/``, the images are called what ``run.json`` says, and
    have the XY positions that they had in the run.

    Parameters
    ----------
    path
        The file or folder.
    progress
        Takes the warnings of label images, such as that a file does not say what its pages are; None for none.

    Raises
    ------
    InputError
        If there is no such file, or if it cannot be read.
    """
    kind = kind_of(path)
    if kind == "missing":
        raise InputError(f"There is no file or folder {path}; check its name.")
    if kind == "folder" and not holds_zarr(path):
        files = marked_files(path)
        if not files:
            raise InputError(f"There is no file of annotations in the folder {path}.")
        beside = {companion_of(file) for file in files}
        stems, headers = _in_folder([file for file in files if file not in beside])
    else:
        headers = _headers(path)
        stems = _stems(headers)
    if progress is not None:
        for sentence in (sentence for header in headers for sentence in header.warnings):
            progress.warn(sentence)
    return images_of([_NoPixels(header) for header in headers], stems, Settings())


def _stems(headers: Sequence[Header]) -> Sequence[str]:
    return stems_of([replace(header, size_z=1, size_t=1) for header in headers])  # how many planes is not known


def _in_folder(files: Sequence[Path]) -> tuple[Sequence[str], list[Header]]:
    """Return the stems and headers of the images that files in one folder speak of; those of a run come first."""
    run = images_of_run(output_of(files[0]))
    placed: dict[int, tuple[str, Header]] = {}
    rest: list[Header] = []
    for file in files:
        image = run.get(composed(file.stem))
        if image is None or image.xy is None:
            rest += _headers(file)
        else:
            own = replace(_headers(file)[0], path=Path(image.entry.file), position=image.entry.position)
            placed.setdefault(image.xy, (file.stem, own))
    first = [
        # An image that was not searched has no results, and keeps its place.
        placed.get(xy) or (f"position-{xy + 1}", nominal_header(Path(f"position-{xy + 1}")))
        for xy in range(max(placed, default=-1) + 1)
    ]
    rest = _distinct(rest)
    stems = safe_stems([*(stem for stem, _ in first), *_stems(rest)])
    return stems, [*(header for _, header in first), *rest]


def _distinct(headers: Iterable[Header]) -> list[Header]:
    """Return one header an image, the one that knows its size where there is one."""
    found: dict[str, Header] = {}
    for header in headers:
        key = f"{header.path} {header.position}"
        before = found.get(key)
        if before is None or before.height == UNKNOWN:
            found[key] = header
    return list(found.values())


def _headers(path: Path) -> list[Header]:
    form, content = format_of(path)
    images_in = form and form.optional("images_in")
    return (images_in(path, content) if images_in else []) or [nominal_header(Path(example_stems(path)[-1]))]
