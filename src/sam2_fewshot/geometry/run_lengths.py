"""Masks to COCO's run-length code and back.

The pixels are counted down the columns, one column after the other; the counts are in turn of pixels off and on the
object, the first of them off. Compressed, each count is the difference to the one before last (from the fourth on),
split into groups of five bits, low bits first, each written as a character from ``0`` (48) up, with 32 added when more
follow (``maskApi.c`` in github.com/cocodataset/cocoapi). pycocotools has the same in C, which trusts what it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.records import InstanceMask

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LONGEST_GROUP = 12
"""Characters of a count; 60 bits are more than any image has pixels."""


def encode(instance: InstanceMask) -> NDArray[np.int64]:
    """Return a mask's counts over its whole frame, int64 (n,)."""
    height, width = instance.frame_shape
    columns = np.pad(instance.data.T.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(columns, axis=1)
    place, row = np.nonzero(steps == 1)
    begins = (place + instance.x0) * height + row + instance.y0
    place, row = np.nonzero(steps == -1)
    ends = (place + instance.x0) * height + row + instance.y0
    if not begins.size:
        return np.array([height * width], np.int64)
    separate = begins[1:] != ends[:-1]  # a run to the foot of a column may go on at the head of the next
    begins, ends = begins[np.r_[True, separate]], ends[np.r_[separate, True]]
    edges = np.stack([begins, ends], axis=1).ravel()
    counts = np.diff(edges, prepend=0, append=height * width)
    return counts[:-1] if counts[-1] == 0 else counts


def decode(counts: NDArray[np.int64], frame_shape: tuple[int, int]) -> InstanceMask:
    """Return the mask of counts, cropped to the object; empty when there is none.

    Parameters
    ----------
    counts
        int64 (n,).
    frame_shape
        ``(height, width)`` in pixels.

    Raises
    ------
    ValueError
        If a count is negative, or if they do not add up to the frame's pixels.
    """
    height, width = frame_shape
    if counts.size and (counts.min() < 0 or counts.max() > height * width):
        raise ValueError("a count is not possible")
    if int(counts.sum()) != height * width:
        raise ValueError(f"the counts add up to {int(counts.sum())} pixels")
    edges = np.cumsum(counts)
    begins, ends = edges[:-1:2], edges[1::2]
    begins, ends = begins[ends > begins], ends[ends > begins]
    if not begins.size:
        return InstanceMask(np.zeros((0, 0), bool), 0, 0, frame_shape)
    x0, x1 = int(begins[0]) // height, (int(ends[-1]) - 1) // height + 1
    steps = np.zeros((x1 - x0) * height + 1, np.int8)
    np.add.at(steps, begins - x0 * height, 1)
    np.add.at(steps, ends - x0 * height, -1)
    data = np.cumsum(steps[:-1], dtype=np.int8).reshape(x1 - x0, height).T.astype(bool)
    return crop_to_object(data, frame_shape, x0, 0)


def compress(counts: NDArray[np.int64]) -> str:
    """Return counts as COCO's compressed text."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    letters: list[int] = []
    for value in values.tolist():
        rest = value
        while True:
            bits = rest & 31
            rest >>= 5
            done = rest == (-1 if bits & 16 else 0)
            letters.append(bits + (48 if done else 80))
            if done:
                break
    return bytes(letters).decode("ascii")


def expand(text: str) -> NDArray[np.int64]:
    """Return the counts in a compressed text, int64 (n,).

    Raises
    ------
    ValueError
        If the text is not such a code.
    """
    letters = np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if not letters.size or letters.min() < 0 or letters.max() > 63 or letters[-1] & 32:
        raise ValueError("its text is not a run-length code")
    last = np.flatnonzero(letters & 32 == 0)
    first = np.r_[0, last[:-1] + 1]
    lengths = last - first + 1
    if lengths.max() > _LONGEST_GROUP:
        raise ValueError("its text has a number that is too long")
    place = np.arange(letters.size) - np.repeat(first, lengths)
    values = np.add.reduceat((letters & 31) << (5 * place), first)
    values -= np.where(letters[last] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
