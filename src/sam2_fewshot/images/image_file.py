"""An image of a dataset and its frames: planes of a file, composed to RGB and read whole or by region."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sam2_fewshot.errors import InputError
from sam2_fewshot.images.addresses import image_title, stem_of
from sam2_fewshot.images.display import compose, frame_exposures, plane_exposures
from sam2_fewshot.images.source import RegionSource
from sam2_fewshot.records import Location, whole_box
from sam2_fewshot.rendering.contrast import bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.images.display import DisplaySettings
    from sam2_fewshot.images.source import Header, PixelSource
    from sam2_fewshot.records import Box
    from sam2_fewshot.rendering.contrast import Exposures, Limits

_Made = TypeVar("_Made")
LARGE = 1 << 24
"""Pixels (4,096 × 4,096); a larger frame is read by region, where its file allows it."""


class ImageFile:
    """One image file, or one of the images in it: an XY position.

    Parameters
    ----------
    xy
        Its place among all images.
    stem
        What to call its results; no two images of a set have the same.
    full_name
        What tells the file from all others of the set; see :func:`~sam2_fewshot.images.stems.full_names_of`.
    source
        Where the pixels come from.
    display
        Tells how they become RGB; it is asked when that is needed.
    cache
        Where the set's last composed frame stays.
    whole_plane
        See :func:`open_images`.
    """

    def __init__(
        self,
        xy: int,
        stem: str,
        full_name: str,
        source: PixelSource,
        display: Callable[[], DisplaySettings],
        cache: LastPlane,
        whole_plane: int = LARGE,
    ) -> None:
        self.whole_plane = whole_plane
        self.xy, self.stem, self.full_name, self.source = xy, stem, full_name, source
        self._display, self._cache = display, cache
        self._frames: dict[tuple[int, int], FrameFile] = {}
        self._exposures: dict[tuple[int, int], Exposures] = {}

    @cached_property
    def display(self) -> DisplaySettings:
        """How the pixels become RGB.

        Raises
        ------
        SettingsError
            If the user's settings name a channel that the image does not have.
        """
        return self._display()

    @property
    def header(self) -> Header:
        """What the file says about the image."""
        return self.source.header

    @property
    def path(self) -> Path:
        """The file, or of an OME-Zarr the folder or address of the image itself."""
        return self.header.path

    @property
    def name(self) -> str:
        """What to call the image: the file's full name, and the position's where it has several."""
        return image_title(self.full_name, self.position)

    @property
    def file_name(self) -> str:
        """The file's name, whatever position of it this is."""
        return self.header.file_name

    @property
    def position(self) -> str:
        """Name of the position, where the file has several; else empty."""
        return self.header.position

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All that the user may call the image by, the position's name or the file's stem first."""
        file, position = self.file_name, self.position
        own = (position, self.stem) if position else (self.stem, stem_of(Path(file)))
        return tuple(dict.fromkeys((*own, self.header.name, self.name)))

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self.header.height, self.header.width

    @property
    def size_z(self) -> int:
        """Number of slices."""
        return self.header.size_z

    @property
    def size_t(self) -> int:
        """Number of time points."""
        return self.header.size_t

    @property
    def is_stack(self) -> bool:
        """Whether there are several slices or time points."""
        return self.size_z * self.size_t > 1

    def has(self, z: int, t: int) -> bool:
        """Tell whether the file has a slice and time point."""
        return 0 <= z < self.size_z and 0 <= t < self.size_t

    def frame(self, z: int = 0, t: int = 0) -> FrameFile:
        """Return the frame at a slice and time point; the same object each time.

        Raises
        ------
        IndexError
            If the file has no such frame.
        """
        if not self.has(z, t):
            raise IndexError(f"{self.name} has no slice {z} at time {t} (counted from 0)")
        return self._frames.setdefault((z, t), FrameFile(self, Location(self.xy, z, t), self.name))

    def let_go(self) -> None:
        """As :meth:`ImageSet.let_go`."""
        self._cache.clear()

    def _whole(self, z: int, t: int, work: Callable[[Iterable[NDArray[Any]]], _Made]) -> _Made:
        """Make something of all planes of a frame."""
        try:
            return work(self.source.planes(z, t))
        except MemoryError:
            name = self._plane_name(z, t)
            raise InputError(f"{name} does not fit into the memory of this computer.") from None

    @property
    def _is_read_whole(self) -> bool:
        return self.shape[0] * self.shape[1] <= self.whole_plane or not self.header.by_region

    def exposures(self, z: int, t: int) -> Exposures:
        """Return how each channel of a frame was exposed.

        Raises
        ------
        InputError
            If the pixels cannot be read.
        """
        if (z, t) not in self._exposures:
            if self._is_read_whole:
                made = self._whole(z, t, lambda planes: plane_exposures(planes, self.header, self.display))
            else:
                assert isinstance(self.source, RegionSource)
                made = frame_exposures(self.source, self.display, z, t, self._plane_name(z, t))
            self._exposures[z, t] = made
        return self._exposures[z, t]

    def region(self, z: int, t: int, box: Box, examples: Sequence[Exposures] = ()) -> NDArray[np.uint8]:
        """Read a region ``(x0, y0, x1, y1)`` of one frame and make it RGB, uint8 (h, w, 3).

        Of a frame of more than `whole_plane` pixels only the region is read, if the file allows it. Contrast is that of
        the whole frame in any case, beside the examples' frames where their exposures are given.

        Raises
        ------
        InputError
            If the pixels cannot be read, or none of them is a finite number.
        """
        name = self._plane_name(z, t)
        limits: tuple[Limits | None, ...] | None = None
        if examples or not self._is_read_whole:
            exposures = self.exposures(z, t)
            limits = bounded(exposures, examples)
            if self._is_read_whole and limits == bounded(exposures, ()):
                limits = None  # as without examples, so that pictures of the frame need not be made anew
        if self._is_read_whole:

            def made(planes: Iterable[NDArray[Any]]) -> NDArray[np.uint8]:
                return compose(planes, self.header, self.display, name, limits)

            x0, y0, x1, y1 = box
            whole = self._cache.get((self.xy, z, t, limits), lambda: self._whole(z, t, made))
            return whole[y0:y1, x0:x1].copy()
        assert isinstance(self.source, RegionSource)
        return compose(self.source.region(z, t, box), self.header, self.display, name, limits)

    def _plane_name(self, z: int, t: int) -> str:
        return f"{self.name} (Z {z + 1}, time {t + 1})" if self.is_stack else self.name


@dataclass(frozen=True, eq=False, slots=True)
class FrameFile:
    """One frame of an image file; a :class:`~sam2_fewshot.records.FrameReader`.

    Contrast is that of the whole frame, whatever region is read.

    Parameters
    ----------
    image
        The file.
    location
        Where the frame belongs in the dataset.
    name
        The image's name.
    examples
        Exposures of the examples' frames, beside which it is displayed.
    """

    image: ImageFile
    location: Location
    name: str
    examples: tuple[Exposures, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self.image.shape

    @property
    def held_bytes(self) -> int:
        """Bytes that the whole frame takes as RGB, where it is large and its file cannot be read by region; else 0."""
        height, width = self.shape
        whole = height * width > self.image.whole_plane and not self.image.header.by_region
        return 3 * height * width if whole else 0

    def read(self, region: Box | None = None) -> NDArray[np.uint8]:
        """Return the RGB pixels (h, w, 3) of a region, or of all of the frame, as an array of the caller's own.

        Raises
        ------
        InputError
            If the pixels cannot be read, or none of them is a finite number.
        ValueError
            If the region is not inside the frame.
        """
        x0, y0, x1, y1 = region or whole_box(self.shape)
        if not (0 <= x0 <= x1 <= self.shape[1] and 0 <= y0 <= y1 <= self.shape[0]):
            raise ValueError(f"the region {region} is not inside the frame of {self.shape[1]} × {self.shape[0]} px")
        return self.image.region(self.location.z, self.location.time, (x0, y0, x1, y1), self.examples)

    @property
    def exposures(self) -> Exposures:
        """How each channel was exposed."""
        return self.image.exposures(self.location.z, self.location.time)

    def displayed_as(self, examples: Sequence[Exposures]) -> FrameFile:
        """Return the frame as it is searched beside the examples' frames."""
        return replace(self, examples=tuple(examples))


class LastPlane:
    """Caches the frame composed last, since tiles and examples of one frame are read one after the other."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._pixels: NDArray[np.uint8] | None = None
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...], compose: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the frame of a key, composed now if it is not that of the last time."""
        with self._lock:
            if self._pixels is None or self._key != key:
                self._pixels = None  # let go of the old one before the new one is made
                self._pixels = compose()
                self._key = key
            return self._pixels

    def clear(self) -> None:
        """Let the frame go."""
        with self._lock:
            self._key = self._pixels = None
