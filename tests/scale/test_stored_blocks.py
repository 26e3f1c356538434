"""Blocks of a large frame that are stored on a shelf, of any kind, and taken from there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scale_job import Lines
from scale_scenes import as_set, bright_segmenter, scene

from sam2_fewshot import Exemplar, Frame, InputError, Location
from sam2_fewshot.runner.blocks import StoredBlocks, file_name, from_bytes, to_bytes
from sam2_fewshot.runner.progress import Watch

if TYPE_CHECKING:
    from bright import BrightSegmenter
    from sam2_fewshot.tiling.blocks import BlockResult

THRESHOLD = 0.7


@dataclass
class InMemory:
    """A Shelf that may be full, or unreadable."""

    files: dict[str, bytes] = field(default_factory=dict)
    is_full: bool = False
    is_readable: bool = True
    written: int = 0

    def read(self, name: str) -> bytes | None:
        return self.files.get(name) if self.is_readable else None

    def write(self, name: str, content: bytes) -> None:
        self.written += 1
        if self.is_full:
            raise InputError("The disk is full.")
        self.files[name] = content


@pytest.fixture
def fitted() -> BrightSegmenter:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[20:37, 20:37] = 200
    enough = bright_segmenter(600**2, similarity_threshold=THRESHOLD)
    enough.fit([Exemplar(image=picture, mask=picture[..., 0] > 100)])
    segmenter = bright_segmenter(120**2, similarity_threshold=THRESHOLD).adopt(enough.object_model)
    segmenter.bright.searched = 0
    return segmenter


@pytest.fixture
def frame() -> Frame:
    picture = scene(count=20)
    picture[200:204, 150:230] = 180  # in some blocks not whole
    return Frame(picture, "slide.tif", Location(2, 1, 3))


@pytest.fixture
def lines() -> Lines:
    return Lines()


def store_of(shelf: InMemory, frame: Frame, lines: Lines) -> StoredBlocks:
    return StoredBlocks(shelf, frame.name, frame.shape, THRESHOLD, Watch(lines))


def test_blocks_are_searched_once(fitted: BrightSegmenter, frame: Frame, lines: Lines) -> None:
    shelf = InMemory()
    first = fitted.predict(frame, store_of(shelf, frame, lines))
    assert first.blocks == len(shelf.files) > 9
    assert lines.lines == []
    assert fitted.bright.searched == first.blocks - first.blank
    second = fitted.predict(frame, store_of(shelf, frame, lines))
    assert fitted.bright.searched == first.blocks - first.blank  # and no more
    assert lines.lines == [f"slide.tif: {first.blocks} of {first.blocks} blocks are finished already and kept."]
    assert first.detections
    assert first.below
    for one, other in ((first.detections, second.detections), (first.below, second.below)):
        assert as_set(one) == as_set(other)
        assert all(item.location == frame.location for item in other)
    for name in ("floor", "threshold", "reason", "candidates", "blocks", "blank"):
        assert getattr(first, name) == getattr(second, name)


def test_a_shelf_that_fails_is_told_once_and_stops_nothing(fitted: BrightSegmenter, frame: Frame, lines: Lines) -> None:
    plain = fitted.predict(frame)
    shelf = InMemory(is_full=True)
    result = fitted.predict(frame, store_of(shelf, frame, lines))
    assert as_set(result.detections) == as_set(plain.detections)
    assert shelf.written == plain.blocks
    assert lines.lines == ["Finished blocks of slide.tif cannot be kept, so a stop would lose them. The disk is full."]


def test_a_shelf_that_cannot_be_read_is_empty(fitted: BrightSegmenter, frame: Frame, lines: Lines) -> None:
    shelf = InMemory()
    plain = fitted.predict(frame, store_of(shelf, frame, lines))
    shelf.is_readable = False
    result = fitted.predict(frame, store_of(shelf, frame, lines))
    assert as_set(result.detections) == as_set(plain.detections)
    assert shelf.written == 2 * plain.blocks
    assert lines.lines == []


def test_a_small_frame_is_not_stored(fitted: BrightSegmenter, lines: Lines) -> None:
    frame, shelf = Frame(scene(60, 2)), InMemory()
    assert fitted.predict(frame, store_of(shelf, frame, lines)).blocks == 1
    assert shelf.written == 0


@pytest.fixture
def results(fitted: BrightSegmenter, frame: Frame) -> list[BlockResult]:
    plan = fitted.plan(frame)
    return [fitted.search(frame, plan, block) for block in plan.blocks]


def assert_same(one: BlockResult, other: BlockResult) -> None:
    assert one.block == other.block
    assert as_set(one.found.detections) == as_set(other.found.detections)
    for name in ("floor", "candidates", "seconds", "blank"):
        assert getattr(one.found, name) == getattr(other.found, name)
    assert [(mask.box, mask.data.tobytes()) for mask in one.clipped] == [
        (mask.box, mask.data.tobytes()) for mask in other.clipped
    ]


def test_a_block_comes_back_exactly(results: list[BlockResult], frame: Frame) -> None:
    assert any(result.clipped for result in results)
    for result in results:
        again = from_bytes(to_bytes(result, THRESHOLD), result.block, frame.shape, THRESHOLD)
        assert again is not None
        assert_same(result, again)
    assert len({file_name(result.block) for result in results}) == len(results)


def test_a_blank_block_comes_back_as_blank(fitted: BrightSegmenter, frame: Frame) -> None:
    plan = replace(fitted.plan(frame), contrast=256.0)
    result = fitted.search(frame, plan, plan.blocks[0])
    again = from_bytes(to_bytes(result, THRESHOLD), result.block, frame.shape, THRESHOLD)
    assert again is not None
    assert (again.found.blank, len(again.found.detections)) == (1, 0)


def test_what_belongs_to_something_else_is_not_taken(results: list[BlockResult], frame: Frame) -> None:
    content, block = to_bytes(results[0], THRESHOLD), results[0].block
    assert from_bytes(content, block, frame.shape, THRESHOLD + 0.01) is None
    assert from_bytes(content, results[1].block, frame.shape, THRESHOLD) is None
    x0, y0, x1, y1 = block.read
    assert from_bytes(content, replace(block, read=(x0, y0, x1 + 1, y1)), frame.shape, THRESHOLD) is None


def test_a_damaged_block_is_not_taken(results: list[BlockResult], frame: Frame) -> None:
    result = max(results, key=lambda each: len(each.found.detections))
    whole = to_bytes(result, THRESHOLD)
    damaged = [whole[:size] for size in range(0, len(whole), 97)]
    damaged += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(0, len(whole), 61)]
    damaged += [b"", b"not an archive", np.zeros(3).tobytes()]
    taken = [from_bytes(content, result.block, frame.shape, THRESHOLD) for content in damaged]
    assert sum(each is None for each in taken) > len(taken) / 2
    for each in taken:
        if each is not None:  # a flipped bit in a place that does not matter, such as a date
            assert_same(result, each)
