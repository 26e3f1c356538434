"""A large frame's blocks that an earlier run has finished, and those that this one does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sam2_fewshot.blocks import Block, BlockFinds
    from sam2_fewshot.writers.block_journal import BlockJournal


@dataclass(eq=False, slots=True)
class BlocksOnDisk:
    """A :class:`~sam2_fewshot.large.KeptBlocks` in the output folder.

    Parameters
    ----------
    journal
        Where they are.
    name
        What to call the frame.
    frame_shape
        Its ``(height, width)`` in pixels.
    say, warn
        Take sentences for the user.
    """

    journal: BlockJournal
    name: str
    frame_shape: tuple[int, int]
    say: Callable[[str], None]
    warn: Callable[[str], None]
    _is_told: bool = False

    def known(self, blocks: Sequence[Block]) -> dict[Block, BlockFinds]:
        """Return what earlier runs have found, and say how much that is."""
        read = ((block, self.journal.read(block, self.frame_shape)) for block in blocks)
        known = {block: finds for block, finds in read if finds is not None}
        if known:
            self.say(f"{self.name}: {len(known)} of {len(blocks)} blocks are finished already and kept.")
        return known

    def keep(self, finds: BlockFinds) -> None:
        """Keep what was found in a block. Where that cannot be, it is said once, and the search goes on without."""
        try:
            self.journal.write(finds)
        except InputError as error:
            if self._is_told:
                return
            self._is_told = True
            self.warn(f"Finished blocks of {self.name} cannot be kept, so a stop would lose them. {error}")
