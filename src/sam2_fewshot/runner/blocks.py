"""The finished blocks of a large frame, stored until the frame is finished."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sam2_fewshot.errors import FewShotError
from sam2_fewshot.records import FrameResult, Location
from sam2_fewshot.storage.packing import (
    open_archive,
    pack_detections,
    pack_masks,
    unpack_detections,
    unpack_masks,
    write_archive,
)
from sam2_fewshot.tiling.blocks import BlockResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.runner.progress import Watch
    from sam2_fewshot.tiling.blocks import Block

_FORMAT = "sam2-fewshot block"
_VERSION = 1


class BlockFiles(Protocol):
    """Stores the files of one frame's blocks by their names."""

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None where it is not there or cannot be read."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Store a file, whole or not at all; a :class:`~sam2_fewshot.errors.FewShotError` says why it cannot be."""
        ...


@dataclass(eq=False, slots=True)
class StoredBlocks:
    """The results of one frame's blocks; a :class:`~sam2_fewshot.tiling.blocks.BlockStore`.

    Parameters
    ----------
    shelf
        Where they are.
    name
        What to call the frame.
    frame_shape
        Its ``(height, width)`` in pixels.
    threshold
        The score that an object must have.
    watch
        Reports how much was there already, and once when a block cannot be stored.
    """

    shelf: BlockFiles
    name: str
    frame_shape: tuple[int, int]
    threshold: float
    watch: Watch
    _is_reported: bool = False

    def load(self, blocks: Sequence[Block]) -> dict[Block, BlockResult]:
        """Return the blocks' results of earlier runs, and report how many there are."""
        stored: dict[Block, BlockResult] = {}
        for block in blocks:
            content = self.shelf.read(file_name(block))
            result = None if content is None else from_bytes(content, block, self.frame_shape, self.threshold)
            if result is not None:
                stored[block] = result
        if stored:
            self.watch.say(f"{self.name}: {len(stored)} of {len(blocks)} blocks are finished already and kept.")
        return stored

    def save(self, result: BlockResult) -> None:
        """Store the result of a block. Where that fails, the user is warned once, and the search goes on without."""
        try:
            self.shelf.write(file_name(result.block), to_bytes(result, self.threshold))
        except FewShotError as error:
            if not self._is_reported:
                self.watch.warn(f"Finished blocks of {self.name} cannot be kept, so a stop would lose them. {error}")
            self._is_reported = True


def file_name(block: Block) -> str:
    """Return the name of a block's file."""
    return "_".join(map(str, block.core)) + ".npz"


def to_bytes(result: BlockResult, threshold: float) -> bytes:
    """Return the result of a block as a NumPy archive without pickles."""
    found = result.found
    location = next((item.location for item in found.detections), Location())
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "core": list(result.block.core),
        "read": list(result.block.read),
        "threshold": threshold,
        "location": [location.xy, location.z, location.time],
        "candidates": found.candidates,
        "seconds": {stage: float(seconds) for stage, seconds in found.seconds.items()},
        "blank": bool(found.blank),
        "floor": float(found.floor),
    }
    arrays = pack_detections(found.detections)
    arrays["cut_boxes"], arrays["cut_bits"] = pack_masks(result.clipped)
    content = io.BytesIO()
    write_archive(content, header, arrays)
    return content.getvalue()


def from_bytes(content: bytes, block: Block, frame_shape: tuple[int, int], threshold: float) -> BlockResult | None:
    """Return what :func:`to_bytes` was given, None when the block must be searched anew.

    An archive that is damaged, truncated, of another version or threshold, or of a block with another halo counts as
    missing.
    """
    try:
        header, archive = open_archive(content, _FORMAT, (_VERSION,))
        own = header["threshold"], tuple(header["core"]), tuple(header["read"])
        if own != (threshold, block.core, block.read):
            return None
        found = FrameResult(
            unpack_detections(archive, frame_shape, Location(*header["location"]))[0],
            floor=float(header["floor"]),
            candidates=int(header["candidates"]),
            seconds=header["seconds"],
            blank=int(header["blank"]),
        )
        return BlockResult(block, found, unpack_masks(archive, frame_shape, "cut_"))
    except Exception:  # a damaged archive fails in a dozen ways, and the answer to all is the same
        return None
