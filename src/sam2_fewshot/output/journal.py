"""The journal in the output folder: finished frames, and finished blocks of unfinished ones.

All output files are assembled from the records of the finished frames. A frame has a file, an ``.npz`` archive without
pickles:

==============  ==========================  ===============================================================
member          dtype, shape                content
==============  ==========================  ===============================================================
``header``      uint8 (bytes of JSON)       format, version, fingerprint and the record's small fields
``boxes``       int64 (N, 4)                box of each mask, ``x0, y0, x1, y1``: the detections, of which the
                                            header has the number, then the candidates below the threshold
``bits``        uint8                       the masks in their boxes row by row, each packed to whole bytes
``figures``     float64 (N, 3)              score, similarity, predicted IoU
``kinds``       uint8 (N,)                  places in :data:`~sam2_fewshot.storage.packing.KINDS`
``outlines``    uint8                       well-known binary of their polygons, then of the examples
``lengths``     int64 (N + E,)              bytes of each outline
==============  ==========================  ===============================================================

Everything comes back bit by bit. A file is named by what its frame depends on and by its place, so that frames recorded
under another fingerprint are neither taken nor overwritten.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sam2_fewshot.annotations.record import ExampleMark, FrameRecord
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.positions import MOST_FRAMES
from sam2_fewshot.records import Learned, Location
from sam2_fewshot.storage.files import read_whole, refuse_device, replacing, write_whole
from sam2_fewshot.storage.packing import open_archive, pack_detections, unpack_detections, write_archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from sam2_fewshot.storage.arrays import ArrayArchive

JOURNAL_FOLDER = ".frames"
"""Name of the journal's folder in the output folder."""
BLOCKS_FOLDER = "blocks"
"""Name of the folder, in the journal's, of the finished blocks of unfinished frames. Each frame has a folder there, by
what it depends on and by the threshold, which also decides what a block reports; each block has a file."""

_FORMAT = "sam2-fewshot frame"
_VERSION = 4
_READABLE = (3, _VERSION)
"""Version 3 had no examples among the objects. Its results can be read, but not taken over by another run."""
_MEMBERS = frozenset({"header", *pack_detections(())})
_NAME = re.compile(r"(?:[0-9a-f]{24}_)?xy(\d+)_z(\d+)_t(\d+)\.npz")
_DIGITS = 24
_BLOCKS = re.compile(rf"[0-9a-f]{{{_DIGITS}}}_[0-9a-f]{{{_DIGITS}}}_z\d+_t\d+_[0-9a-f]{{{_DIGITS}}}")
"""Names of the folders of blocks. Others are the user's, as where the journal is linked to a disk with more on it."""
_LARGEST = 10**12  # that a number in a header may be


@dataclass(frozen=True, slots=True)
class Journal:
    """Finished frames on disk.

    Parameters
    ----------
    folder
        Where they are stored; it is made at the first write.
    fingerprint
        What the frames depend on (inputs, settings, model) in a string. Frames recorded under another
        fingerprint count as not done.
    """

    folder: Path
    fingerprint: str

    def done(self, location: Location) -> FrameRecord | None:
        """Return a frame's record, None when the frame must be searched.

        A file that is damaged, truncated, of another version or under another fingerprint counts as not done.

        Raises
        ------
        InputError
            If there is a file that cannot be read at the moment, as on a network drive that has gone.
        """
        return _read(self._path(location), self.fingerprint, location)

    def summary(self, location: Location) -> FrameRecord | None:
        """Return a frame's record without its objects and examples, None where :meth:`done` does.

        That the objects are undamaged is seen from the check sums, which is much faster than to make them.

        Raises
        ------
        InputError
            As :meth:`done`.
        """
        return _read(self._path(location), self.fingerprint, location, with_objects=False)

    def write(self, record: FrameRecord) -> None:
        """Record a finished frame; it replaces an earlier record of the same location and fingerprint.

        The file appears when it is whole. The record's location is taken for the detections' too.

        Raises
        ------
        InputError
            If it cannot be written (disk full, no permission).
        """
        with replacing(self._path(record.location)) as path, path.open("wb") as file:
            write_archive(file, *_pack(record, self.fingerprint))

    def discard(self, location: Location) -> None:
        """Delete a frame's record, so that the frame is searched again."""
        with suppress(OSError):
            self._path(location).unlink()

    def preview(self, location: Location) -> Path:
        """Return where the small picture of a frame for the report belongs."""
        return preview_beside(self._path(location))

    def _path(self, location: Location) -> Path:
        place = f"xy{location.xy:06d}_z{location.z:05d}_t{location.time:05d}"
        return self.folder / f"{_digest(self.fingerprint)}_{place}.npz"


def read_record(path: Path) -> FrameRecord | None:
    """Return a frame's record from its file, None where it is missing or damaged.

    Raises
    ------
    InputError
        As :meth:`Journal.done`.
    """
    return _read(path) if _NAME.fullmatch(path.name) else None


def preview_beside(path: Path) -> Path:
    """Return where the small picture of the frame belongs whose record is in this file."""
    return path.with_suffix(".jpg")


def remove_others(folder: Path, prefix: str, own: Iterable[str] = ()) -> None:
    """Delete the records whose fingerprint does not begin with `prefix`, and those that are damaged.

    The small pictures go with their records. Results of other settings stay until this is called, so trying a
    setting and going back costs nothing.

    Parameters
    ----------
    folder
        Where they are.
    prefix
        What all frames of the run depend on.
    own
        Fingerprints that are known to begin with it; their records are not opened.
    """
    names = {_digest(fingerprint) for fingerprint in own}
    for path in list(folder.glob("*.npz")):
        is_own = path.name.partition("_")[0] in names
        if not is_own and _NAME.fullmatch(path.name) and _is_other(path, prefix):
            with suppress(OSError):
                path.unlink()
    for path in list(folder.glob("*.jpg")):
        record = path.with_suffix(".npz")
        if _NAME.fullmatch(record.name) and not record.exists():
            with suppress(OSError):
                path.unlink()


def _read(
    path: Path, fingerprint: str | None = None, location: Location | None = None, *, with_objects: bool = True
) -> FrameRecord | None:
    content = read_whole(path)
    if content is None:
        return None
    try:
        header, archive = open_archive(content, _FORMAT, _READABLE)
        if fingerprint is not None and (header["fingerprint"], header["version"]) != (fingerprint, _VERSION):
            return None
        if location is not None and Location(*header["location"]) != location:
            return None
        if with_objects:
            return _unpack(header, archive, path.name)
        return _record(header, path.name) if archive.is_whole(_MEMBERS) else None
    except Exception:  # a damaged archive fails in a dozen ways, and the answer to all is the same
        return None


def _is_other(path: Path, prefix: str) -> bool:
    """Tell whether a record's fingerprint begins otherwise, or it is damaged; not of one that cannot be read now."""
    try:
        refuse_device(path)
        with path.open("rb") as file:
            file.read(1)  # the archive's reader takes an error of the disk for damage
            header, _ = open_archive(file, _FORMAT, _READABLE)
        return not str(header["fingerprint"]).startswith(prefix)
    except (OSError, InputError):
        return False
    except Exception as error:  # as in _read
        return not isinstance(error.__cause__, OSError)


@dataclass(frozen=True, slots=True)
class BlockFolder:
    """The files of one frame's finished blocks on disk; a :class:`~sam2_fewshot.runner.blocks.BlockFiles`.

    Parameters
    ----------
    folder
        The journal's folder.
    common, fingerprint
        What all frames of the run depend on, and what this one does, in strings.
    location
        Of the frame in its file.
    threshold
        The score that an object must have.
    """

    folder: Path
    common: str
    fingerprint: str
    location: Location
    threshold: float

    def read(self, name: str) -> bytes | None:
        """Return a block's file, None where there is none."""
        with suppress(InputError):
            return read_whole(self._place / name)
        return None

    def write(self, name: str, content: bytes) -> None:
        """Store a block's file; it appears when it is whole.

        Raises
        ------
        InputError
            If it cannot be written (disk full, no permission).
        """
        write_whole(self._place / name, content)

    def drop(self) -> None:
        """Delete all blocks of the frame, also those that were searched for another threshold."""
        _remove_blocks(self.folder, lambda name: name.startswith(f"{self._frame}_"))

    @property
    def _frame(self) -> str:
        return f"{_digest(self.common)}_{_digest(self.fingerprint)}_z{self.location.z:05d}_t{self.location.time:05d}"

    @property
    def _place(self) -> Path:
        return self.folder / BLOCKS_FOLDER / f"{self._frame}_{_digest(repr(float(self.threshold)))}"


def has_blocks(folder: Path) -> bool:
    """Return whether blocks of unfinished frames lie in a journal's folder."""
    return any((folder / BLOCKS_FOLDER).glob("*/*.npz"))


def remove_other_blocks(folder: Path, common: str) -> None:
    """Delete the blocks of frames that depend on something else than `common`."""
    _remove_blocks(folder, lambda name: not name.startswith(_digest(common)))


def _remove_blocks(folder: Path, chosen: Callable[[str], bool]) -> None:
    """Delete the blocks of the frames whose folder's name is chosen."""
    for path in (folder / BLOCKS_FOLDER).glob("*"):
        if _BLOCKS.fullmatch(path.name) and chosen(path.name):
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        (folder / BLOCKS_FOLDER).rmdir()  # where it is empty


def _digest(fingerprint: str) -> str:
    return sha256(fingerprint.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def _pack(record: FrameRecord, fingerprint: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "fingerprint": fingerprint,
        "name": record.name,
        "stem": record.stem,
        "location": [record.location.xy, record.location.z, record.location.time],
        "frame_shape": list(record.frame_shape),
        "size_z": record.size_z,
        "size_t": record.size_t,
        "candidates": record.candidates,
        "seconds": {stage: float(seconds) for stage, seconds in record.seconds.items()},
        "negative": [mark.negative for mark in record.examples],
        "boxes": [mark.is_box for mark in record.examples],
        "warnings": list(record.warnings),
        "kept": len(record.detections),
        "threshold": record.threshold,
        "floor": record.floor,
        "learned": None if record.learned is None else [record.learned.summary, record.learned.warnings],
    }
    arrays = pack_detections((*record.detections, *record.below), [mark.outline for mark in record.examples])
    return header, arrays


def _unpack(header: dict[str, Any], archive: ArrayArchive, file: str) -> FrameRecord:
    record = _record(header, file)
    detections, outlines = unpack_detections(archive, record.frame_shape, record.location)
    negative = header["negative"]
    marks = zip(outlines, negative, header.get("boxes", [False] * len(negative)), strict=True)
    return replace(
        record,
        detections=tuple(detections[: header["kept"]]),
        examples=tuple(ExampleMark(*mark) for mark in marks),
        below=tuple(detections[header["kept"] :]),
    )


def _record(header: dict[str, Any], file: str) -> FrameRecord:
    """Return a record without its objects and examples."""
    _check(header)
    summary, warnings = header.get("learned") or (None, ())
    return FrameRecord(
        name=header["name"],
        stem=header["stem"],
        location=Location(*header["location"]),
        frame_shape=(int(header["frame_shape"][0]), int(header["frame_shape"][1])),
        size_z=header["size_z"],
        size_t=header["size_t"],
        candidates=header["candidates"],
        seconds=header["seconds"],
        warnings=tuple(header["warnings"]),
        threshold=header["threshold"],
        floor=header["floor"],
        file=file,
        learned=None if summary is None else Learned(summary, tuple(warnings)),
    )


def _check(header: dict[str, Any]) -> None:
    """Raise an error if a header holds what no run writes; all files are made of it."""
    said, warnings = header.get("learned") or ("", [])
    sizes = [*header["frame_shape"], header["size_z"], header["size_t"]]
    whole = [*sizes, *header["location"], header["candidates"], header["kept"]]
    figures = [header["threshold"], header["floor"], *header["seconds"].values()]
    texts = [header["name"], header["stem"], *header["warnings"], said, *warnings]
    flags = [*header["negative"], *header.get("boxes", ())]
    if not (
        all(isinstance(each, int) and 0 <= each <= _LARGEST for each in whole)
        and all(isinstance(each, int | float) and abs(each) <= _LARGEST for each in figures)
        and all(isinstance(each, str) for each in texts)
        and all(isinstance(each, bool) for each in flags)
        and min(sizes) > 0
        and header["size_z"] * header["size_t"] <= MOST_FRAMES
    ):
        raise ValueError("the header holds what no run writes")
