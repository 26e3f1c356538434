"""Formats that have a file for each image rather than one for all."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sam2_fewshot.writers.record import Add, FrameRecord


@contextmanager
def a_file_an_image(begin: Callable[[FrameRecord], AbstractContextManager[Add]]) -> Iterator[Add]:
    """Feed each image's frames to a writer of its own; an image's frames must follow one another.

    Parameters
    ----------
    begin
        Gives the writer of the image that a frame is the first of. It is left when another image begins, and at the
        end, which is when it puts its file in place.

    Yields
    ------
    Add
        Takes the frames.
    """
    with ExitStack() as image:
        writing: tuple[str, Add] | None = None

        def add(record: FrameRecord) -> None:
            nonlocal writing
            if writing is None or writing[0] != record.stem:
                image.close()
                writing = record.stem, image.enter_context(begin(record))
            writing[1](record)

        yield add
