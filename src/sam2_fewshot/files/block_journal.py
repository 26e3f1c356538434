"""The finished blocks of a frame that is searched in blocks, kept until the frame is finished.

A large frame may take an hour, and a run that is stopped should not lose what it has of it. Each frame has a folder in
``blocks`` of the journal's folder, with one file a block: an ``.npz`` archive without pickles, packed as those of
:mod:`~sam2_fewshot.files.journal` are. The folder is named by what the frame depends on, and by the threshold, which
also decides what a block tells.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.annotations.record import (
    pack_figures,
    pack_masks,
    pack_outlines,
    unpack_found,
    unpack_masks,
    unpack_outlines,
)
from sam2_fewshot.records import Location
from sam2_fewshot.storage.files import replacing, sweep
from sam2_fewshot.tiling.blocks import Block, BlockFinds

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS_FOLDER = "blocks"
"""Name of the folder in the journal's folder."""

_FORMAT = "sam2-fewshot block"
_VERSION = 1
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class BlockJournal:
    """Finished blocks of one frame on disk.

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

    def read(self, block: Block, frame_shape: tuple[int, int]) -> BlockFinds | None:
        """Return what was found in a block, None when it must be searched (again).

        A file that is damaged, cut off, of another version, or of a block with another halo counts as not there.
        """
        try:
            with self._path(block).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return _unpack(archive, block, frame_shape, self.threshold)
        except Exception:  # a damaged archive fails in a dozen ways, and the answer to all is the same
            return None

    def write(self, finds: BlockFinds) -> None:
        """Keep what was found in a block; the file appears when it is whole.

        Raises
        ------
        InputError
            If it cannot be written (disk full, no permission).
        """
        with replacing(self._path(finds.block)) as path, path.open("wb") as file:
            np.savez_compressed(file, **_pack(finds, self.threshold))

    def drop(self) -> None:
        """Delete all blocks of the frame, also those that were searched for another threshold."""
        for path in self.folder.glob(f"{BLOCKS_FOLDER}/{self._frame}_*"):
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            (self.folder / BLOCKS_FOLDER).rmdir()  # where it is empty

    @property
    def _frame(self) -> str:
        return f"{_digest(self.common)}_{_digest(self.fingerprint)}_z{self.location.z:05d}_t{self.location.time:05d}"

    def _path(self, block: Block) -> Path:
        folder = f"{self._frame}_{_digest(repr(float(self.threshold)))}"
        return self.folder / BLOCKS_FOLDER / folder / ("_".join(map(str, block.core)) + ".npz")


def has_blocks(folder: Path) -> bool:
    """Tell whether blocks of unfinished frames lie in a journal's folder."""
    return any((folder / BLOCKS_FOLDER).glob("*/*.npz"))


def sweep_blocks(folder: Path) -> None:
    """Remove what killed runs left half written, as :func:`~sam2_fewshot.storage.files.sweep` does."""
    for path in (folder / BLOCKS_FOLDER).glob("*"):
        sweep(path)


def remove_other_blocks(folder: Path, common: str) -> None:
    """Delete the blocks of frames that depend on something else than `common`."""
    for path in (folder / BLOCKS_FOLDER).glob("*"):
        if not path.name.startswith(_digest(common)):
            shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        (folder / BLOCKS_FOLDER).rmdir()


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


def _pack(finds: BlockFinds, threshold: float) -> dict[str, Any]:
    location = next((item.location for item in finds.detections), Location())
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "core": list(finds.block.core),
        "read": list(finds.block.read),
        "threshold": threshold,
        "location": [location.xy, location.z, location.time],
        "candidates": finds.candidates,
        "seconds": {stage: float(seconds) for stage, seconds in finds.seconds.items()},
        "blank": finds.blank,
        "floor": float(finds.floor),
    }
    boxes, bits = pack_masks([item.instance for item in finds.detections])
    cut_boxes, cut_bits = pack_masks(finds.cut)
    outlines, lengths = pack_outlines([item.polygon for item in finds.detections])
    return {
        "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
        "boxes": boxes,
        "bits": bits,
        "figures": pack_figures(finds.detections),
        "outlines": outlines,
        "lengths": lengths,
        "cut_boxes": cut_boxes,
        "cut_bits": cut_bits,
    }


def _unpack(archive: Any, block: Block, frame_shape: tuple[int, int], threshold: float) -> BlockFinds | None:
    header = json.loads(archive["header"].tobytes())
    if (header["format"], header["version"], header["threshold"]) != (_FORMAT, _VERSION, threshold):
        return None
    if (tuple(header["core"]), tuple(header["read"])) != (block.core, block.read):
        return None
    masks = unpack_masks(archive["boxes"], archive["bits"], frame_shape)
    outlines = unpack_outlines(archive["outlines"], archive["lengths"])
    return BlockFinds(
        block,
        unpack_found(masks, outlines, archive["figures"], Location(*header["location"])),
        unpack_masks(archive["cut_boxes"], archive["cut_bits"], frame_shape),
        int(header["candidates"]),
        header["seconds"],
        bool(header["blank"]),
        float(header["floor"]),
    )
