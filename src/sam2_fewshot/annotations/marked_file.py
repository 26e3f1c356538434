"""A file of marked objects, and the image that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.addresses import holds_zarr, stem_of
from sam2_fewshot.images.registry import IMAGE_SUFFIXES, example_stems
from sam2_fewshot.images.source import Header, reading
from sam2_fewshot.images.stems import safe_stem

if TYPE_CHECKING:
    from pathlib import Path

    from sam2_fewshot.annotations.placing import Placer
    from sam2_fewshot.images.image_set import ImageFile
    from sam2_fewshot.records import PixelSize


@dataclass(frozen=True, eq=False, slots=True)
class MarkedFile:
    """A file or folder with marked objects, as it is given to the reader of its format.

    Parameters
    ----------
    path
        Where it is.
    image
        The image that it is named after, None when there is none.
    placer
        Puts its objects on their frames.
    content
        Of a JSON file.
    tagged
        True when tags are asked for, so that a file without tags is of no use.
    """

    path: Path
    image: ImageFile | None
    placer: Placer
    content: Any = None
    tagged: bool = False

    def target(self, ending: str = "") -> ImageFile:
        """Return the image that the objects lie on: the one that the file is named after, else the only one.

        Parameters
        ----------
        ending
            What usually follows the image's name in that of the file.

        Raises
        ------
        InputError
            If it could be one of several, or the file is named after another image.
        """
        if self.image is not None:
            return self.image
        path = named_part(self.path)
        first = self.placer.images[0]
        if len(self.placer.images) > 1:
            raise InputError(
                f"It is not clear to which of the {len(self.placer.images)} images {path.name} belongs; name it after "
                f"its image, for instance {first.stem}{ending}{path.suffix} for {first.name}, or give the image's name "
                "with --examples-on."
            )
        other = _other_image(path, first)
        if other is None and len(stems := example_stems(path)) > 1:
            other = f"an image {stems[-1]}"
        if other is not None:
            raise InputError(
                f"{path.name} is named after {other}, but only {first.name} was given. If its objects were marked on "
                f"{first.name}, say so with --examples-on {first.name}; else give both images, of which --batch-xy "
                "chooses those that are searched."
            )
        return first


def named_part(path: Path) -> Path:
    """Return what of a path is named after an image: of an OME-Zarr the outermost Zarr, ``a.zarr`` of its labels."""
    while path.is_dir() and holds_zarr(path.parent):
        path = path.parent
    return path


def _other_image(path: Path, given: ImageFile) -> str | None:
    """Return the name of an image that lies there, was not given, and is what a file of examples is named after."""
    for folder in (path.parent, given.path.parent):
        if not folder.is_dir():  # the image is on the web
            continue
        with reading(folder):
            beside = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file != path]
        for stem in example_stems(path):
            names = sorted(file.name for file in beside if stem in (stem_of(file), safe_stem(stem_of(file))))
            if names:
                return names[0]
    return None


UNKNOWN = 1_000_000
"""Width, height, slices and time points of an image that the annotations do not tell the size of."""
MOST_IMAGES = 100_000
"""So many images are believed of one file."""


def nominal_header(
    name: Path,
    shape: tuple[int, int] = (UNKNOWN, UNKNOWN),
    size_z: int = UNKNOWN,
    size_t: int = UNKNOWN,
    pixel_size: PixelSize | None = None,
) -> Header:
    """Return the header of an image of which only annotations are at hand, which do not tell its channels.

    Parameters
    ----------
    name
        What it is called.
    shape
        ``(height, width)`` in pixels.
    size_z, size_t
        Number of slices and of time points.
    pixel_size
        In micrometres.
    """
    kind = np.dtype(np.uint8)
    return Header(
        name, *shape, kind, size_z=size_z, size_t=size_t, channel_names=(), channel_colors=(), pixel_size=pixel_size
    )
