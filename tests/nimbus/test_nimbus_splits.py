"""Objects that the user has split or joined by hand stay so when the tool runs again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contract_server.bench import Bench, bright, ring, white_layer
from contract_server.store import Image
from shapely import Point, Polygon, box

from sam2_fewshot.annotations.nimbus import points_of
from sam2_fewshot.annotations.record import vertices
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.nimbus.marks import OwnerMark
from sam2_fewshot.nimbus.matching import StoredAnnotation, match

if TYPE_CHECKING:
    from contract_server.web import ContractServer
    from numpy.typing import NDArray

WHOLE = box(10, 10, 50, 30)
LEFT, RIGHT = box(10, 10, 29, 30), box(31, 10, 50, 30)
LARGE, SMALL = box(10, 10, 36, 30), box(38, 10, 50, 30)
ELSEWHERE = box(100, 100, 120, 120)


def known(name: str, outline: Polygon, mark: OwnerMark | None = None, is_negative: bool = False) -> StoredAnnotation:
    return StoredAnnotation(name, "polygon", vertices(outline.exterior), b"", mark, is_negative=is_negative)


def ids(outlines: list[Polygon], *there: StoredAnnotation) -> list[str | None]:
    return [each and each.known.id for each in match(outlines, there)]


@pytest.mark.parametrize(("one", "two"), [(LEFT, RIGHT), (LARGE, SMALL), (SMALL, LARGE)])
def test_what_the_user_has_split_or_joined_is_there(one: Polygon, two: Polygon) -> None:
    (split, other) = match([WHOLE, ELSEWHERE], [known("one", one), known("two", two)])
    assert split is not None
    assert other is None
    assert {split.known.id, *(piece.id for piece in split.pieces)} == {"one", "two"}
    assert ids([one, ELSEWHERE, two], known("whole", WHOLE)) == ["whole", None, "whole"]


def test_only_the_user_splits_and_joins() -> None:
    mark = OwnerMark("job", ("cell",))
    assert ids([WHOLE], known("left", LEFT, mark), known("right", RIGHT, mark)) == [None]
    assert ids([LEFT, RIGHT], known("whole", WHOLE, mark)) == [None, None]


def test_pieces_that_do_not_make_the_whole_are_other_objects() -> None:
    assert ids([WHOLE], known("some", SMALL.buffer(-1)), known("more", box(10, 10, 14, 30))) == [None]
    assert ids([SMALL.buffer(-1), box(10, 10, 14, 30)], known("whole", WHOLE)) == [None, None]
    assert ids([WHOLE], known("left", box(-40, 10, 29, 30)), known("right", box(31, 10, 90, 30))) == [None]


def test_a_disc_in_a_ring_is_no_piece_of_it() -> None:
    outer, inner = (Point(60.5, 60.5).buffer(radius) for radius in (26, 20))
    assert ids([outer, inner], known("outer", outer)) == ["outer", None]
    assert ids([outer, inner], known("inner", inner)) == [None, "inner"]
    (only,) = match([outer], [known("outer", outer), known("inner", inner)])
    assert only is not None
    assert (only.known.id, only.pieces) == ("outer", ())


def test_of_pieces_one_of_which_is_wanted_the_object_is_there() -> None:
    assert ids([WHOLE], known("left", LEFT, is_negative=True), known("right", RIGHT)) == ["right"]


def job(server: ContractServer, pixels: NDArray[Any]) -> Bench:
    pixels[(np.hypot(*(np.mgrid[:64, :64] - 8.0))) <= 6] = 200
    dataset = server.store.add_dataset(Image({(0, 0, 0, 0): pixels}), [white_layer()])
    server.store.add_annotation(dataset, tags=["cell"], coordinates=ring(8, 8, 6))
    return Bench(server, dataset, partial(bright, finds_examples=False))


def areas(bench: Bench) -> dict[str, int]:
    return {each["_id"]: polygon_to_mask(Polygon(points_of(each)), (64, 64)).area for each in bench.found()}


def test_halves_drawn_by_hand_stay_and_have_only_their_area(server: ContractServer) -> None:
    pixels = np.full((64, 64), 100, "uint16")
    for column in (30, 40):
        pixels[np.hypot(*(np.mgrid[:64, :64] - np.array([40, column])[:, None, None])) <= 6] = 200
    bench = job(server, pixels)
    bench.run()
    (whole,) = bench.found()
    server.store.edit_annotation(whole["_id"], {"coordinates": ring(40, 30, 5.8)})
    server.store.add_annotation(bench.dataset, tags=["found"], coordinates=ring(40, 40, 5.8))
    for _ in range(2):
        assert bench.run().messages[-1]["info"] == "0 added, 1 already there; 1 frame"
        none = {"Similarity": None, "Score": None, "Predicted IoU": None}
        assert bench.values() == {key: {**none, "Area": area} for key, area in areas(bench).items()}


def test_halves_joined_by_hand_stay_one(server: ContractServer) -> None:
    pixels = np.full((64, 64), 100, "uint16")
    pixels[np.hypot(*(np.mgrid[:64, :64] - 40.0)) <= 9] = 200
    pixels[:, 40] = 100
    bench = job(server, pixels)
    bench.run()
    one, other = bench.found()
    server.store.edit_annotation(one["_id"], {"coordinates": ring(40, 40, 9)})
    server.store.delete_annotations([other["_id"]])
    for _ in range(2):
        assert bench.run().messages[-1]["info"] == "0 added, 2 already there; 1 frame"
        assert [each["_id"] for each in bench.found()] == [one["_id"]]
        assert bench.values()[one["_id"]]["Area"] == areas(bench)[one["_id"]] > 200
