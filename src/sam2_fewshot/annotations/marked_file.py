"""A file of marked objects, and the image that it belongs to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.annotations.named import first_of, named_part
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.addresses import stem_of
from sam2_fewshot.images.registry import IMAGE_SUFFIXES, example_stems
from sam2_fewshot.images.source import Header, reading
from sam2_fewshot.images.stems import safe_stem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sam2_fewshot.annotations.placing import Placer
    from sam2_fewshot.images.image_set import ImageFile, ImageSet
    from sam2_fewshot.records import PixelSize


@dataclass(frozen=True, eq=False, slots=True)
class MarkedFile:
    """A file or folder with marked objects, as it is given to the reader of its format.

    Parameters
    ----------
    path
        Where it is.
    image
        The image that it is named after, or that the user says; None when there is none, or it is not clear which.
    images
        Those that were given.
    placer
        Puts its objects on their frames.
    content
        Of a JSON file.
    tagged
        True when tags are asked for, so that a file without tags is of no use.
    alike
        The images that have the name that the file has, where it is not clear which of them is meant.
    may_say
        Whether the user can say with ``--examples-on`` which image is meant.
    is_said
        Whether the user has said it.
    """

    path: Path
    image: ImageFile | None
    images: ImageSet
    placer: Placer
    content: Any = None
    tagged: bool = False
    alike: Sequence[ImageFile] = ()
    may_say: bool = True
    is_said: bool = False

    def said(self, images: int) -> ImageFile | None:
        """Return the image that the user says, whatever the file does; None where it is left to the file.

        Parameters
        ----------
        images
            Of so many the file speaks itself.

        Raises
        ------
        InputError
            If these are several.
        """
        if self.image is None or not self.is_said:
            return None
        if images > 1:
            raise InputError(
                f"--examples-on says that the objects of {self.path.name} lie on {self.image.name}, but the file "
                f"speaks of {images} images. Leave out --examples-on, or give a file with the objects of one image."
            )
        return self.image

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
        if self.alike:
            raise InputError(
                f"{path.name} is named after several images, {first_of(self.alike)}. Put it into the folder of the one "
                "on which its objects lie, or "
                + (f"say it with --examples-on {self.alike[0].name}." if self.may_say else "give that one only.")
            )
        first = self.images[0]
        example = f"{first.stem}{ending}{path.suffix}"
        if len(self.images) > 1:
            raise InputError(
                f"It is not clear to which of the {len(self.images)} images {path.name} belongs; name it after "
                f"its image, for instance {example} for {first.name}, or give "
                + ("the image's name with --examples-on." if self.may_say else "that image only.")
            )
        other = _other_image(path, first)
        if other is None and len(stems := example_stems(path)) > 1:
            other = f"an image {stems[-1]}"
        if other is not None:
            raise InputError(
                f"{path.name} is named after {other}, but only {first.name} was given. If its objects were marked on "
                f"{first.name}, "
                + (
                    f"say so with --examples-on {first.name}; else segment with both images, of which --batch-xy "
                    "chooses those that are searched."
                    if self.may_say
                    else f"name it after that, for instance {example}; else give the other image in its place."
                )
            )
        return first


def _other_image(path: Path, given: ImageFile) -> str | None:
    """Return the name of an image that lies there, was not given, and is what a file of examples is named after."""
    for folder in (path.parent, given.path.parent):
        if not folder.is_dir():  # the image is on the web
            continue
        with reading(folder):
            found = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
        beside = [file for file in found if os.path.realpath(file) != os.path.realpath(path)]
        for stem in example_stems(path):
            names = sorted(file.name for file in beside if stem in (stem_of(file), safe_stem(stem_of(file))))
            if names:
                return names[0]
    return None


UNKNOWN = 1_000_000
"""Width, height, slices and time points of an image that the annotations do not tell the size of."""


def nominal_header(
    name: Path,
    shape: tuple[int, int] = (UNKNOWN, UNKNOWN),
    size_z: int = UNKNOWN,
    size_t: int = UNKNOWN,
    pixel_size: PixelSize | None = None,
) -> Header:
    """Return the header of an image of which only annotations are at hand, which do not tell its channels.

    Its shape is ``(height, width)`` in pixels, and the size of a pixel is in micrometres.
    """
    kind = np.dtype(np.uint8)
    return Header(
        name, *shape, kind, size_z=size_z, size_t=size_t, channel_names=(), channel_colors=(), pixel_size=pixel_size
    )
