"""The object model: what was learned from the examples, and its file."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo
from zlib import error as DamagedStream

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import FrameReader

COMPARED = ("scorer", "occupancy_levels", "features_from")
"""Further settings with which candidates must be compared as the examples were."""

_FORMAT = 2
_STRIP = 1 << 24
"""Pixels that are read at a time."""
_PREFIX = "learned_"
_DAMAGES = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    EOFError,
    BadZipFile,
    DamagedStream,
    RuntimeError,  # an archive with a password, or packed in a way that Python does not know
    MemoryError,  # a header that promises more than there is
)


@dataclass(frozen=True, slots=True)
class KnownObject:
    """An example's place, so that it is not reported as a detection.

    Parameters
    ----------
    frame_digest
        :func:`frame_digest` of the frame it lies on.
    mask
        The example.
    """

    frame_digest: str
    mask: InstanceMask


@dataclass(frozen=True, eq=False, slots=True)
class ObjectModel:
    """Feature vectors of the examples, and all that is needed to compare others with them.

    Parameters
    ----------
    method
        ``grid`` or ``guided``.
    learned
        What the method learned, arrays by name.
    areas
        int64, areas of the examples in pixels.
    known
        Where the examples lie, the negative ones included.
    model_name, model_sha256
        The checkpoint whose features these are.
    target_occupancy, max_zoom
        The settings of the context crops; candidates must be cropped alike.
    compared
        Those of :data:`COMPARED`, by name.
    """

    method: str
    learned: Mapping[str, NDArray[np.generic]]
    areas: NDArray[np.int64]
    known: Sequence[KnownObject]
    model_name: str
    model_sha256: str
    target_occupancy: float
    max_zoom: float
    compared: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, by name, that must be the same for candidates as for the examples."""
        return {
            "method": self.method,
            "target_occupancy": self.target_occupancy,
            "max_zoom": self.max_zoom,
            **self.compared,
        }

    def check_settings(self, settings: Settings, what: str) -> None:
        """Refuse settings with which it cannot be used.

        Parameters
        ----------
        settings
            Of the search.
        what
            What to call the model.

        Raises
        ------
        InputError
            If one of them is not that with which it was learned.
        """
        for name, value in self.settings.items():
            if getattr(settings, name) != value:
                raise InputError(
                    f"{what} was learned with {Settings.model_fields[name].title} {value}, but the settings say "
                    f"{getattr(settings, name)}; use {value}, or learn again from the examples."
                )

    @property
    def diameter(self) -> float:
        """Diameter of the median example in pixels, the square root of its area."""
        return float(np.sqrt(np.median(self.areas)))

    @property
    def longest(self) -> float:
        """Longest side of an example in pixels."""
        sides = [max(item.mask.data.shape) for item in self.known]
        return float(max(max(sides, default=0), np.sqrt(self.areas.max())))

    def known_on(self, frame: FrameReader) -> list[InstanceMask]:
        """Return the examples that lie on a frame. Where no frame of theirs has its size, its pixels are not read."""
        if not any(item.mask.frame_shape == frame.shape for item in self.known):
            return []
        digest = frame_digest(frame)
        return [item.mask for item in self.known if item.frame_digest == digest]

    def to_bytes(self) -> bytes:
        """Return the model as a NumPy archive (``.npz``). The same model gives the same bytes."""
        facts = {
            "format": _FORMAT,
            "method": self.method,
            "model_name": self.model_name,
            "model_sha256": self.model_sha256,
            "target_occupancy": self.target_occupancy,
            "max_zoom": self.max_zoom,
            "compared": dict(self.compared),
        }
        masks = [item.mask for item in self.known]
        arrays: dict[str, Any] = {
            "facts": np.array(json.dumps(facts)),
            **{_PREFIX + name: array for name, array in self.learned.items()},
            "areas": self.areas,
            "known_digests": np.array([item.frame_digest for item in self.known], np.str_),
            "known_boxes": np.array([mask.box for mask in masks], np.int64).reshape(-1, 4),
            "known_frames": np.array([mask.frame_shape for mask in masks], np.int64).reshape(-1, 2),
            "known_pixels": np.packbits(np.concatenate([np.zeros(0, bool), *(m.data.ravel() for m in masks)])),
        }
        content = io.BytesIO()
        with ZipFile(content, "w", ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                # As np.savez_compressed, which would put the time of day into the file.
                info = ZipInfo(f"{name}.npy")
                info.compress_type = ZIP_DEFLATED
                with archive.open(info, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "This") -> ObjectModel:
        """Return the model that :meth:`to_bytes` was given.

        Parameters
        ----------
        content
            The archive.
        name
            What to call it in messages, such as its file.

        Raises
        ------
        InputError
            If it is damaged, or not an object model.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                facts = json.loads(str(archive["facts"]))
                if facts["format"] != _FORMAT:
                    raise InputError(
                        f"The object model {name} has format {facts['format']}, but this version reads {_FORMAT}; "
                        "learn it again from the examples."
                    )
                boxes = archive["known_boxes"]
                sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
                pixels = np.unpackbits(archive["known_pixels"], count=int(sizes.sum())).astype(bool)
                parts = np.split(pixels, np.cumsum(sizes)[:-1]) if len(sizes) else []
                known = [
                    KnownObject(
                        str(digest),
                        InstanceMask(part.reshape(y1 - y0, x1 - x0), int(x0), int(y0), (int(frame[0]), int(frame[1]))),
                    )
                    for digest, part, (x0, y0, x1, y1), frame in zip(
                        archive["known_digests"], parts, boxes, archive["known_frames"], strict=True
                    )
                ]
                return cls(
                    method=str(facts["method"]),
                    learned={
                        name.removeprefix(_PREFIX): archive[name] for name in archive.files if name.startswith(_PREFIX)
                    },
                    areas=archive["areas"],
                    known=known,
                    model_name=str(facts["model_name"]),
                    model_sha256=str(facts["model_sha256"]),
                    target_occupancy=float(facts["target_occupancy"]),
                    max_zoom=float(facts["max_zoom"]),
                    compared={name: str(facts["compared"][name]) for name in COMPARED if name in facts["compared"]},
                )
        except _DAMAGES as error:
            raise InputError(f"{name} is not an object model of sam2-fewshot, or it is damaged.") from error


def frame_digest(frame: FrameReader, strip: int = _STRIP) -> str:
    """Return a short hash of a frame's size and pixels, by which it is known again.

    Parameters
    ----------
    frame
        A large one is read in strips. One whose reader has an attribute ``digest`` is not read.
    strip
        As many pixels are read at a time.
    """
    own = getattr(frame, "digest", None)
    if own is not None:
        return str(own)
    height, width = frame.shape
    digest = hashlib.blake2b(repr((height, width, 3)).encode(), digest_size=16)
    rows = max(1, strip // max(1, width))
    for top in range(0, height, rows):
        digest.update(np.ascontiguousarray(frame.read((0, top, width, min(top + rows, height)))).data)
    return digest.hexdigest()
