"""The object model: what was learned from the examples, and its file."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.geometry.overlap import boxes_of
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.rendering.contrast import Exposure
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.arrays import ArrayArchive, Layout, Unfit
from sam2_fewshot.storage.digests import frame_digest
from sam2_fewshot.storage.files import refuse_device

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.records import FrameReader
    from sam2_fewshot.rendering.contrast import Exposures

PERCENTILES = ("black_percentile", "white_percentile")
"""Settings with which images must be displayed as those of the examples were."""
COMPARED = ("scorer", "occupancy_levels", "features_from", *PERCENTILES)
"""Further settings with which candidates must be compared as the examples were."""

_FORMAT = 2
_PREFIX = "learned_"
_MAX_BYTES = 500_000_000
"""Largest file of an object model that is read."""
MAX_PIXELS = 1 << 30
"""The boxes of the examples may have so many pixels together."""
MAX_CHANNELS = 1_000_000
"""Longest text on the display of channels."""
_TINY, _HUGE = 1e-12, 1e15
_GREY = 1e-6
"""Weights of the three colours, of which they are a direction of length 1, differ by less only by rounding."""
_LONGEST_SIDE = 1 << 14
"""Of a tile in pixels; four times the widest that SAM 2's input of 1,024 px gives."""
_FACTS = {"facts": Layout("U", most=10_000)}
_COMMON = {
    "areas": Layout("i8", ("examples",), least=1, most=MAX_PIXELS),
    "known_digests": Layout("U", ("known",), most=64, may_be_empty=True),
    "known_boxes": Layout("i8", ("known", 4), least=0, most=MAX_PIXELS, may_be_empty=True),
    "known_frames": Layout("i8", ("known", 2), least=1, most=MAX_PIXELS, may_be_empty=True),
    "known_pixels": Layout("u1", ("bytes",), may_be_empty=True),
    # Version 0.2.0 did not tell which are wanted.
    "known_wanted": Layout("?", ("known",), may_be_empty=True, is_optional=True),
    "channels": Layout("U", most=MAX_CHANNELS, is_optional=True),
    # Version 0.8.0 had none. Frame, channel, and the six numbers of an exposure, all NaN where there is none.
    "exposures": Layout("f8", ("exposures", 8), may_be_nan=True, may_be_empty=True, is_optional=True),
    "learned_shape_mean": Layout("f8", (3,)),
    "learned_shape_spread": Layout("f8", (3,), least=_TINY),
}
_CLASSIFIERS = {"first": "features", "second": "features+4"}
_LEARNED = {
    "grid": {
        "vectors": Layout("f4", ("vectors", "width")),
        "negatives": Layout("f4", ("negatives", "width"), may_be_empty=True),
        "left_out": Layout("f4", ("vectors",), least=-1.001, most=1.001),
    },
    "guided": {
        # Side of a tile, diameter, smallest and largest area, unit; three biases and the threshold may be anything.
        "numbers": Layout("f8", (9,), (1.0, *[_TINY] * 4, *[-_HUGE] * 4), (_LONGEST_SIDE, *[_HUGE] * 8)),
        "evidence": Layout("i8", (4,), least=0, is_optional=True),  # version 0.2.0 had none
        # Version 0.3.0 had none of these.
        "examples": Layout("f8", (2,), least=1.0, most=_HUGE, is_optional=True),
        "sizes": Layout("f8", (3,), least=(0.0, 0.0, 1.0), is_optional=True),
        "larger": Layout("f8", (2,), least=0.0, is_optional=True),
        "prominence": Layout("f8", (2,), least=-_HUGE, is_optional=True),
        "erosion": Layout("f8", (1,), least=0.0, most=_LONGEST_SIDE, is_optional=True),  # version 0.4.0 had none
        "agreement": Layout("f8", (1,), least=0.0, most=1.0, is_optional=True),  # version 0.5.0 had none
        # Which of the first descriptors, its value, and a truth value.
        "kinds": Layout("f8", ("kinds", 3), (0.0, -_HUGE, 0.0), (4.0, _HUGE, 1.0), may_be_empty=True, is_optional=True),
        "colours": Layout("f8", (3,)),
        "levels": Layout("f8", (3, "levels"), may_be_nan=True, may_be_empty=True),
        **{f"cells_{name}": Layout("f4", ("cells",)) for name in ("mean", "weights", "directions")},
        "cells_scale": Layout("f4", ("cells",), least=_TINY),
        **{
            f"{which}_{name}": Layout("f8", (length,), least=_TINY if name == "scale" else -_HUGE)
            for which, length in _CLASSIFIERS.items()
            for name in ("mean", "scale", "weights")
        },
    },
}
"""What the arrays must be like that each method has learned."""


@dataclass(frozen=True, slots=True)
class KnownObject:
    """An example's place, so that it is not reported as a detection.

    Parameters
    ----------
    frame_digest
        :func:`~sam2_fewshot.storage.digests.frame_digest` of the frame it lies on.
    mask
        The example.
    wanted
        Whether it is an object of the wanted kind that counts: not a negative example, nor one that contradicts or
        repeats another.
    """

    frame_digest: str
    mask: InstanceMask
    wanted: bool = False


class KnownMasks(NamedTuple):
    """The examples that lie on a frame.

    Parameters
    ----------
    wanted
        Objects of the wanted kind, each once.
    unwanted
        The others, such as negative examples.
    untold
        All of them in a model of version 0.2.0, which does not tell.
    """

    wanted: Sequence[InstanceMask]
    unwanted: Sequence[InstanceMask]
    untold: Sequence[InstanceMask]


@dataclass(frozen=True, eq=False, slots=True)
class ObjectModel:
    """What was learned from examples: all that is needed to compare candidates with them, and where they lie.

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
    channels
        How the channels of the examples' images were displayed, as the text of a file for ``--channels``; empty where
        it was as by default, None where it is not known.
    exposures
        Of the examples' frames, whose contrast bounds that of the frames that are searched.
    version
        That of this program that learned it; empty up to 0.8.0, which did not say it.
    """

    method: str
    learned: Mapping[str, NDArray[np.generic]]
    areas: NDArray[np.int64]
    known: Sequence[KnownObject]
    model_name: str
    model_sha256: str
    target_occupancy: float
    max_zoom: float
    compared: Mapping[str, str | float] = field(default_factory=dict)
    channels: str | None = None
    exposures: Sequence[Exposures] = ()
    version: str = ""

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

    def doubt(self, what: str) -> str:
        """Return why it may not fit colour images, in words; empty where it was surely learned as they are displayed.

        Parameters
        ----------
        what
            What to call the model.
        """
        colours = self.learned.get("colours")  # of `guided`; all alike where it was learned from grey images
        if self.version or (colours is not None and np.ptp(colours) < _GREY):
            return ""
        return (
            f"{what} was learned by version 0.8.0 or an earlier one. Before 0.8.0 colour images were displayed in "
            "another contrast, so if it was learned from such images then, objects may be missed, and its examples "
            "found like others: learn again from the examples."
        )

    def checkpoint(self, what: str, option: str) -> str:
        """Return the name that opens the weights with which it was learned.

        Parameters
        ----------
        what
            What to call the model.
        option
            What takes the path of a checkpoint.

        Raises
        ------
        InputError
            If the checkpoint was given by a path, and its name does not tell where it is.
        """
        from sam2_fewshot.backbones import is_name

        if not is_name(self.model_name):
            raise InputError(
                f"{what} was learned with {self.model_name} (SHA-256 {self.model_sha256[:12]}…), which is in none of "
                f"the folders for checkpoints; give its path with {option}."
            )
        return self.model_name

    @property
    def diameter(self) -> float:
        """Diameter of the median example in pixels, the square root of its area."""
        return float(np.sqrt(np.median(self.areas)))

    @property
    def longest(self) -> float:
        """Longest side of a wanted example in pixels; of any example in a model that does not tell which are wanted."""
        known = [item for item in self.known if item.wanted] or self.known
        sides = [max(item.mask.data.shape) for item in known]
        return float(max(max(sides, default=0), np.sqrt(self.areas.max())))

    def known_on(self, frame: FrameReader) -> KnownMasks:
        """Return the examples that lie on a frame. Where no frame of theirs has its size, its pixels are not read."""
        here: list[KnownObject] = []
        if any(item.mask.frame_shape == frame.shape for item in self.known):
            digest = _saved(frame_digest(frame))
            here = [item for item in self.known if _saved(item.frame_digest) == digest]
        others = [item.mask for item in here if not item.wanted]
        is_told = any(item.wanted for item in self.known)
        return KnownMasks([item.mask for item in here if item.wanted], *((others, []) if is_told else ([], others)))

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
            "version": self.version,
        }
        masks = [item.mask for item in self.known]
        arrays: dict[str, Any] = {
            "facts": np.array(json.dumps(facts)),
            **{_PREFIX + name: array for name, array in self.learned.items()},
            "areas": self.areas,
            "known_digests": np.array([_saved(item.frame_digest) for item in self.known], np.str_),
            "known_boxes": boxes_of(masks),
            "known_frames": np.array([mask.frame_shape for mask in masks], np.int64).reshape(-1, 2),
            "known_wanted": np.array([item.wanted for item in self.known], bool),
            "known_pixels": np.packbits(np.concatenate([np.zeros(0, bool), *(m.data.ravel() for m in masks)])),
        }
        if self.channels is not None:
            arrays["channels"] = np.array(self.channels)
        rows = [
            (frame, channel, *(each or [math.nan] * 6))
            for frame, exposures in enumerate(self.exposures)
            for channel, each in enumerate(exposures)
        ]
        arrays["exposures"] = np.array(rows, np.float64).reshape(-1, 8)
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
    def from_bytes(cls, content: bytes, name: str = "This", learned: Mapping[str, Layout] | None = None) -> ObjectModel:
        """Return the model that :meth:`to_bytes` was given.

        Parameters
        ----------
        content
            The archive.
        name
            What to call it in messages, such as its file.
        learned
            What the arrays are like that a method has learned, by name; None for those of this program's methods.

        Raises
        ------
        InputError
            If it is damaged, or not an object model.
        """
        try:
            archive = ArrayArchive(content)
            facts = _facts(archive, name)
            own = _LEARNED[facts["method"]] if learned is None else learned
            arrays = archive.take(_COMMON | {_PREFIX + key: layout for key, layout in own.items()})
            return cls(
                method=facts["method"],
                learned={key.removeprefix(_PREFIX): array for key, array in arrays.items() if key.startswith(_PREFIX)},
                areas=arrays["areas"],
                known=_known(arrays),
                **{key: facts[key] for key in ("model_name", "model_sha256", "target_occupancy", "max_zoom")},
                compared=facts["compared"],
                channels=str(arrays["channels"].item()) if "channels" in arrays else None,
                exposures=_exposures(arrays.get("exposures", np.zeros((0, 8)))),
                version=facts["version"],
            )
        except Unfit as error:
            raise InputError(
                f"{name} is not an object model of sam2-fewshot, or it is damaged: {error}. Copy the file again, or "
                "learn again from the examples."
            ) from error


def read_object_model(path: str | os.PathLike[str]) -> ObjectModel:
    """Read what :meth:`FewShotSegmenter.save` wrote.

    Raises
    ------
    InputError
        If the file is missing, damaged, or not an object model.
    """
    return ObjectModel.from_bytes(content_of(path), str(path))


def content_of(path: str | os.PathLike[str]) -> bytes:
    """Return the content of an object model's file.

    Raises
    ------
    InputError
        If the file is missing, cannot be read, or is too large for an object model.
    """
    refuse_device(Path(path))
    try:
        size = Path(path).stat().st_size
        if size > _MAX_BYTES:
            raise InputError(
                f"{path} has {size // 10**6:,} MB; an object model of sam2-fewshot has at most {_MAX_BYTES // 10**6:,}."
            )
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"There is no object model at {path}.") from error
    except OSError as error:
        # It may be whole, as where one may not read it or a network drive has gone.
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from error


def _facts(archive: ArrayArchive, name: str) -> dict[str, Any]:
    """Return what a model says of itself; see :meth:`ObjectModel.to_bytes`."""
    try:
        facts = json.loads(str(archive.take(_FACTS)["facts"].item()))
        found = facts["format"]
    except Unfit:
        raise
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Unfit("it does not say what it is") from error
    if found != _FORMAT:
        raise InputError(
            f"The object model {name} has format {str(found)[:40]}, but this version reads {_FORMAT}; learn it again "
            "from the examples."
        )
    try:
        chosen = {
            "method": facts["method"],
            "target_occupancy": float(facts["target_occupancy"]),
            "max_zoom": float(facts["max_zoom"]),
            **{key: facts["compared"][key] for key in COMPARED if key in facts["compared"]},
        }
        settings = Settings(**chosen)
        if facts["method"] not in _LEARNED:
            raise Unfit("its method is not known")
        compared = {key: getattr(settings, key) for key in COMPARED if key in chosen}
        return {
            **chosen,
            "compared": compared,
            "model_name": str(facts["model_name"]),
            "model_sha256": str(facts["model_sha256"]),
            "version": str(facts.get("version", "")),
        }
    except SettingsError as error:
        raise Unfit(f"its settings make no sense ({str(error).rstrip('.')})") from error
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise Unfit("its settings are missing, or make no sense") from error


def _known(arrays: Mapping[str, NDArray[Any]]) -> list[KnownObject]:
    """Return where the examples lie."""
    digests, boxes, frames = arrays["known_digests"].tolist(), arrays["known_boxes"], arrays["known_frames"]
    if not all(_IS_SAVED(digest) for digest in digests):
        raise Unfit("it does not say on what frames its examples lie")
    x0, y0, x1, y1 = boxes.T
    if (x0 >= x1).any() or (y0 >= y1).any() or (boxes[:, 2:] > frames[:, ::-1]).any():
        raise Unfit("an example lies outside of its frame")
    sizes = (x1 - x0) * (y1 - y0)
    # As floats, since the product of sides that make no sense may be more than an integer holds.
    total = float(((x1 - x0).astype(float) * (y1 - y0)).sum())
    if total > MAX_PIXELS or len(arrays["known_pixels"]) != (int(total) + 7) // 8:
        raise Unfit("the masks of the examples are not of the size of their boxes")
    pixels = np.unpackbits(arrays["known_pixels"], count=int(total)).astype(bool)
    parts = np.split(pixels, np.cumsum(sizes)[:-1]) if len(sizes) else []
    if not all(part.any() for part in parts):
        raise Unfit("the mask of an example is empty")
    wanted = arrays["known_wanted"].tolist() if "known_wanted" in arrays else [False] * len(digests)
    return [
        KnownObject(
            digest, InstanceMask(part.reshape(bottom - top, right - left), left, top, (height, width)), is_wanted
        )
        for digest, part, (left, top, right, bottom), (height, width), is_wanted in zip(
            digests, parts, boxes.tolist(), frames.tolist(), wanted, strict=True
        )
    ]


def _exposures(rows: NDArray[np.float64]) -> list[Exposures]:
    """Return the exposures of each frame."""
    starts = np.flatnonzero(rows[:, 1] == 0)  # each frame begins with its first channel
    return [
        tuple(None if np.isnan(row[2]) else Exposure(*row[2:].tolist()) for row in frame)
        for frame in np.split(rows, starts[1:])
        if len(frame)
    ]


_IS_SAVED = re.compile("[0-9a-f]{32}").fullmatch


def _saved(digest: str) -> str:
    """Return a frame's digest as it is saved: that of a reader of the user's own may be of any length."""
    return (
        digest
        if _IS_SAVED(digest)
        else hashlib.blake2b(digest.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    )
