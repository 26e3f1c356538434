"""From layers, as a viewer displays them, to 8-bit RGB."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.records import whole_box
from sam2_fewshot.rendering.channels import between

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import Box, Location
    from sam2_fewshot.rendering.contrast import Limits

Blending = Literal["translucent", "opaque", "additive", "multiplicative", "minimum"]


@dataclass(frozen=True, eq=False, slots=True)
class Look:
    """How a viewer displays a layer of an image.

    Parameters
    ----------
    limits
        Intensities that are displayed as the first and the last colour.
    colors
        Float (N, 4), RGBA in [0, 1] from the first to the last colour; None for a layer that is RGB itself.
    gamma
        Exponent of the intensity between the limits.
    blending
        How the layer covers what is below it.
    opacity
        In [0, 1]; ``minimum`` and ``multiplicative`` do not heed it.
    """

    limits: Limits
    colors: NDArray[np.floating[Any]] | None = None
    gamma: float = 1.0
    blending: Blending = "translucent"
    opacity: float = 1.0

    @property
    def key(self) -> Hashable:
        """Stands for it: looks that display the same have the same key."""
        colors = None if self.colors is None else self.colors.tobytes()
        return self.limits, colors, self.gamma, self.blending, self.opacity


def blend(planes: Iterable[NDArray[Any]], looks: Sequence[Look]) -> NDArray[np.uint8]:
    """Blend layers as a viewer displays them on black, the lowest first.

    Parameters
    ----------
    planes
        Arrays (H, W), or (H, W, 3) and (H, W, 4) of layers that are RGB, of any real dtype; at least one.
    looks
        How to display each. The lowest covers what is below it, whatever its blending, unless that is ``additive``.

    Returns
    -------
    NDArray
        uint8 (H, W, 3).
    """
    canvas: NDArray[np.float32] | None = None
    for plane, look in zip(planes, looks, strict=True):
        unit = (between(look.limits, plane) ** look.gamma).astype(np.float32)
        if look.colors is None:
            color, alpha = unit[..., :3], unit[..., 3:] if plane.shape[2] == 4 else np.float32(1)
        else:
            table = look.colors.astype(np.float32)
            mapped = table[(unit * (len(table) - 1) + 0.5).astype(np.intp)]
            color, alpha = mapped[..., :3], mapped[..., 3:]
        alpha = alpha * np.float32(look.opacity)
        if canvas is None:
            canvas = color if look.blending == "minimum" else color * alpha
        elif look.blending == "minimum":
            canvas = np.minimum(canvas, color)
        elif look.blending == "multiplicative":
            canvas = canvas * color
        elif look.blending == "additive":
            canvas = np.minimum(canvas + color * alpha, 1)
        elif look.blending == "opaque":
            canvas = color
        else:
            canvas = canvas * (1 - alpha) + color * alpha
    if canvas is None:
        raise ValueError("blend needs at least one plane")
    pixels: NDArray[np.uint8] = (canvas * 255 + 0.5).astype(np.uint8)
    return pixels


@dataclass(frozen=True, eq=False, slots=True)
class BlendedPlane:
    """One plane of layers as a viewer displays them; a :class:`~sam2_fewshot.records.FrameReader`.

    Parameters
    ----------
    arrays, looks
        Those of the layers, the lowest first. The arrays may be lazy: a region is read when it is asked for.
    index
        Of the plane in the arrays: a whole number for each axis, and slices for rows and columns.
    shape
        ``(height, width)`` in pixels.
    name, location
        As in :class:`~sam2_fewshot.records.FrameReader`.
    digest
        Stands for the pixels; see :func:`~sam2_fewshot.storage.digests.frame_digest`. None: they are read for it.
    """

    arrays: Sequence[Any]
    looks: Sequence[Look]
    index: Sequence[int | slice]
    shape: tuple[int, int]
    name: str
    location: Location
    digest: str | None = None

    def read(self, region: Box | None = None) -> NDArray[np.uint8]:
        """Return the RGB pixels (h, w, 3) of a region, or of all of the plane."""
        return blend(self._parts(region), self.looks)

    def stamp(self, region: Box) -> bytes:
        """Return what stands for the pixels of a region, in a tenth of the time in which they are blended."""
        digest = hashlib.blake2b(repr(self.index).encode())
        for part, look in zip(self._parts(region), self.looks, strict=True):
            digest.update(repr((look.key, part.dtype, part.shape)).encode())
            digest.update(np.ascontiguousarray(part).data)
        return digest.digest()

    def _parts(self, region: Box | None) -> Iterator[NDArray[Any]]:
        x0, y0, x1, y1 = region or whole_box(self.shape)
        spans = iter((slice(y0, y1), slice(x0, x1)))
        key = tuple(next(spans) if isinstance(each, slice) else each for each in self.index)
        try:
            for array in self.arrays:
                yield np.asarray(array[key])
        except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
            raise InputError(f"{self.name} cannot be read: {error}.") from error
