"""A backbone that keeps its tiles encodes no window twice, and changes nothing of what is found."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import replace
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from calls import calls_of
from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.backbones.filters import _pyramid
from sam2_fewshot.backbones.sam2 import open_model
from sam2_fewshot.backbones.wrapped import Interruptible, Remembering
from sam2_fewshot.records import Frame
from sam2_fewshot.resources import RESERVE, STORED, room_after_learning
from sam2_fewshot.tiling.blocks import Block

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone, Tile
    from sam2_fewshot.records import Box

WINDOWS = [(x, 0, x + 64, 64) for x in range(0, 192, 32)]
PLENTY = 1 << 30


class Counting:
    """Counts the windows that a backbone encodes."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone, self.encoded = backbone, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.backbone, name)

    def tiles(self, image: NDArray[np.uint8], windows: list[Box], *more: object) -> object:
        self.encoded += len(windows)
        return self.backbone.tiles(image, windows, *more)  # type: ignore[arg-type]


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (64, 192, 3), np.uint8)


def size_of(filters: Backbone, picture: NDArray[np.uint8]) -> int:
    return next(iter(filters.tiles(picture, WINDOWS[:1]))).level_bytes + filters.embedding_bytes


def same(one: Tile, other: Tile) -> bool:
    every = np.ones((64, 64), bool)
    return np.array_equal(one.features(0, every), other.features(0, every))


def test_what_was_encoded_is_given_again_in_the_order_asked_for(filters: Backbone, picture: NDArray[np.uint8]) -> None:
    counting = Counting(filters)
    backbone = Remembering(counting, PLENTY)  # type: ignore[arg-type]
    done: list[int] = []
    list(backbone.tiles(picture, WINDOWS[1:4]))
    again = list(backbone.tiles(picture, WINDOWS, done.append))
    assert counting.encoded == len(WINDOWS)
    assert sum(done) == len(WINDOWS)
    assert all(same(one, other) for one, other in zip(again, filters.tiles(picture, WINDOWS), strict=True))


def test_tiles_of_a_network_are_kept_as_they_are(picture: NDArray[np.uint8]) -> None:
    micro = open_model("micro", "cpu", Settings())  # the tests' own keeps what it encoded
    backbone = Remembering(micro, PLENTY)
    first, again = (list(backbone.tiles(picture, WINDOWS[:1])) for _ in range(2))
    (plain,) = micro.tiles(picture, WINDOWS[:1])
    assert same(first[0], plain)
    assert same(again[0], plain)


def test_other_pixels_are_encoded_even_in_the_same_place(filters: Backbone, picture: NDArray[np.uint8]) -> None:
    counting = Counting(filters)
    backbone = Remembering(counting, PLENTY)  # type: ignore[arg-type]
    list(backbone.tiles(picture, WINDOWS[:1]))
    picture[5, 5] += 1
    (tile,) = backbone.tiles(picture, WINDOWS[:1])
    assert same(tile, next(iter(filters.tiles(picture, WINDOWS[:1]))))
    # As many bytes in another shape.
    list(backbone.tiles(picture.reshape(192, 64, 3), WINDOWS[:1]))
    assert counting.encoded == 3


def test_no_more_is_kept_than_there_is_room_for(filters: Backbone, picture: NDArray[np.uint8]) -> None:
    size = size_of(filters, picture)
    for tiles in (0, 1, 3):
        counting = Counting(filters)
        backbone = Remembering(counting, tiles * size + size // 2)  # type: ignore[arg-type]
        list(backbone.tiles(picture, WINDOWS))
        assert len(list(backbone.tiles(picture, WINDOWS))) == len(WINDOWS)
        assert counting.encoded >= 2 * len(WINDOWS) - tiles
        assert len(backbone._kept) == tiles
        assert backbone.extra_bytes == filters.extra_bytes + tiles * size + size // 2


def test_going_through_more_than_there_is_room_for_finds_some_again(
    filters: Backbone, picture: NDArray[np.uint8]
) -> None:
    counting = Counting(filters)
    backbone = Remembering(counting, 4 * size_of(filters, picture))  # type: ignore[arg-type]
    for _ in range(10):
        list(backbone.tiles(picture, WINDOWS))
    assert counting.encoded < 10 * len(WINDOWS)


def test_what_is_found_is_the_same_to_the_last_bit(
    filters: Backbone, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    image, labels = discs[0][:, :120], discs[1][:, :120]
    masks = [labels == number for number in np.unique(labels)[1:]]
    counting = Counting(filters)
    remembering = Remembering(counting, PLENTY)  # type: ignore[arg-type]
    settings = Settings(points_per_side=16)

    def found(backbone: Backbone, count: int) -> list[tuple[bytes, float]]:
        segmenter = FewShotSegmenter(backbone, settings=settings)
        detections = segmenter.fit([Exemplar(image=image, mask=mask) for mask in masks[:count]]).predict(image)
        return [(each.polygon.wkb, each.score) for each in [*detections.detections, *detections.below]]

    first = found(remembering, 5)
    encoded = counting.encoded
    assert found(remembering, 5) == first == found(filters, 5)
    assert counting.encoded == encoded  # nothing was encoded the second time


def test_only_what_is_encoded_meanwhile_is_kept_where_that_is_asked_for(
    filters: Backbone, picture: NDArray[np.uint8]
) -> None:
    counting = Counting(filters)
    backbone = Remembering(counting, PLENTY, keeps=False)  # type: ignore[arg-type]
    with backbone.keeping():
        list(backbone.tiles(picture, WINDOWS[:2]))
    list(backbone.tiles(picture, WINDOWS))
    list(backbone.tiles(picture, WINDOWS))
    assert counting.encoded == 2 + 2 * (len(WINDOWS) - 2)


def test_a_frame_that_was_learned_from_is_not_encoded_again(discs: tuple[NDArray[np.uint8], NDArray[np.int32]]) -> None:
    image, labels = discs[0][:, :120], discs[1][:, :120]
    exemplars = [Exemplar(image=image, mask=labels == number) for number in np.unique(labels)[1:6]]
    found, encoded = [], []
    for memory in (8, 2):
        segmenter = FewShotSegmenter("filters", settings=Settings(max_memory=memory, sizes="similar")).fit(exemplars)
        with calls_of(_pyramid) as calls:
            result = segmenter.predict(image)
        found.append([(each.polygon.wkb, each.score) for each in [*result.detections, *result.below]])
        encoded.append(len(calls))
    assert found[0] == found[1] != []
    assert encoded[0] < encoded[1]


def test_tiles_give_way_to_a_search_that_needs_their_memory(discs: tuple[NDArray[np.uint8], NDArray[np.int32]]) -> None:
    image, labels = discs[0][:, :120], discs[1][:, :120]
    exemplars = [Exemplar(image=image, mask=labels == number) for number in np.unique(labels)[1:6]]
    segmenter = FewShotSegmenter("filters", settings=Settings(max_memory=6)).fit(exemplars)
    kept = segmenter._remembering
    assert kept is not None
    assert kept._kept
    plan = segmenter.plan(Frame(image))
    large = replace(plan, blocks=[Block((0, 0, 3900, 3900), (0, 0, 4000, 4000))])
    segmenter._make_room(Frame(image), plan)
    assert kept._kept, "a small frame needs none of it"
    segmenter._make_room(Frame(image), large)
    assert not kept._kept


def test_a_backbone_that_can_be_stopped_is_copied(filters: Backbone) -> None:
    again = deepcopy(Interruptible(filters, lambda: None))
    assert again.input_size == filters.input_size


@pytest.mark.parametrize("copy", [deepcopy, lambda segmenter: pickle.loads(pickle.dumps(segmenter))])
def test_a_copied_segmenter_detects_the_same(
    discs: tuple[NDArray[np.uint8], NDArray[np.int32]], copy: Callable[[FewShotSegmenter], FewShotSegmenter]
) -> None:
    image, labels = discs[0][:, :120], discs[1][:, :120]
    exemplars = [Exemplar(image=image, mask=labels == number) for number in np.unique(labels)[1:6]]
    segmenter = FewShotSegmenter("filters", settings=Settings(max_memory=8, sizes="similar")).fit(exemplars)
    again = copy(segmenter)
    assert again._remembering is not None
    assert not again._remembering._kept
    assert [each.score for each in again.segment(image)] == [each.score for each in segmenter.segment(image)]


def test_tiles_are_held_after_learning_where_there_is_memory_to_spare() -> None:
    each = 2_000_000
    assert room_after_learning(2, each, 0) == 0
    assert 0 < room_after_learning(5, each, 0) <= (5e9 - RESERVE) / 8 - STORED
    assert room_after_learning(100, each, 0) == room_after_learning(200, each, 0) == 24 * each * 25 // 4
    assert room_after_learning(5, each, 10**9) < room_after_learning(5, each, 0)


def test_several_threads_may_let_tiles_go(filters: Backbone, picture: NDArray[np.uint8]) -> None:
    backbone = Remembering(filters, PLENTY)
    list(backbone.tiles(picture, WINDOWS))
    begun: list[Thread] = []

    class Meanwhile:
        """Chooses the first tile, while another thread lets all of them go."""

        def integers(self, _: int) -> int:
            if not begun:
                begun.append(Thread(target=backbone.limit, args=(0,)))
                begun[0].start()
                begun[0].join(0.2)
            return 0

    backbone._rng = Meanwhile()  # type: ignore[assignment]
    backbone.limit(0)
    begun[0].join()
    assert (backbone._kept, backbone._bytes) == ({}, 0)


def test_a_tile_that_another_thread_lets_go_is_encoded_again(filters: Backbone, picture: NDArray[np.uint8]) -> None:
    class Leaving(dict[Any, Any]):
        """Is empty after the first look."""

        def __contains__(self, key: object) -> bool:
            found = super().__contains__(key)
            self.clear()
            return found

    backbone = Remembering(filters, PLENTY)
    first = list(backbone.tiles(picture, WINDOWS))
    backbone._kept = Leaving(backbone._kept)
    again = list(backbone.tiles(picture, WINDOWS))
    assert all(same(one, other) for one, other in zip(first, again, strict=True))
