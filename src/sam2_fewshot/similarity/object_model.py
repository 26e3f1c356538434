"""What was learned from the examples."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

COMPARED = ("scorer", "occupancy_levels", "features_from")
"""Further settings with which candidates must be compared as the examples were."""

_FORMAT = 2
_PREFIX = "learned_"


@dataclass(frozen=True, slots=True)
class KnownObject:
    """An example's place, so that it is not reported as a find.

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

    def known_on(self, digest: str) -> list[InstanceMask]:
        """Return the examples that lie on the frame with a digest."""
        return [item.mask for item in self.known if item.frame_digest == digest]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a NumPy archive (``.npz``), whole or not at all.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
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
        arrays: dict[str, Any] = {_PREFIX + name: array for name, array in self.learned.items()}
        target = Path(path)
        beside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with beside.open("wb") as file:
                np.savez_compressed(
                    file,
                    facts=np.array(json.dumps(facts)),
                    **arrays,
                    areas=self.areas,
                    known_digests=np.array([item.frame_digest for item in self.known], np.str_),
                    known_boxes=np.array([mask.box for mask in masks], np.int64).reshape(-1, 4),
                    known_frames=np.array([mask.frame_shape for mask in masks], np.int64).reshape(-1, 2),
                    known_pixels=np.packbits(np.concatenate([np.zeros(0, bool), *(m.data.ravel() for m in masks)])),
                )
            beside.replace(target)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise InputError(f"The object model cannot be written to {target}: {error.strerror}.") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ObjectModel:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged, or not an object model.
        """
        try:
            # Opened here, because np.load leaves a damaged file open.
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                facts = json.loads(str(archive["facts"]))
                if facts["format"] != _FORMAT:
                    raise InputError(
                        f"The object model {path} has format {facts['format']}, but this version reads {_FORMAT}; "
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
        except FileNotFoundError as error:
            raise InputError(f"There is no object model at {path}.") from error
        except (OSError, KeyError, ValueError, TypeError, IndexError, EOFError, BadZipFile) as error:
            raise InputError(f"{path} is not an object model of sam2-fewshot, or it is damaged.") from error


def frame_digest(pixels: NDArray[np.uint8]) -> str:
    """Return a short hash of a frame's size and pixels, by which it is known again."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
