"""A ring and the disc inside it: two objects, although their outlines, which have no holes, are much alike."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from contract_server.bench import Bench, bright, ring, white_layer
from contract_server.store import Image
from shapely import Point, Polygon

from sam2_fewshot.annotations.record import vertices
from sam2_fewshot.nimbus.matching import Match, StoredAnnotation, match

if TYPE_CHECKING:
    from contract_server.web import ContractServer

OUTER, INNER = (Point(60.5, 60.5).buffer(radius) for radius in (26, 20))
EDITED = {"color": "#FF0000"}


@pytest.fixture
def nested(server: ContractServer) -> Bench:
    """A bright ring around a disc that is less bright, and a disc elsewhere as the example."""
    rows, columns = np.mgrid[:96, :96]
    radius = np.hypot(rows - 60, columns - 60)
    plane = np.full((96, 96), 100, "uint16")
    plane[(radius >= 22) & (radius <= 26)] = 200
    plane[radius <= 19] = 180
    plane[np.hypot(rows - 14, columns - 14) <= 7] = 200
    dataset = server.store.add_dataset(Image({(0, 0, 0, 0): plane}), [white_layer()])
    server.store.add_annotation(dataset, tags=["cell"], coordinates=ring(14, 14))
    return Bench(server, dataset, partial(bright, score=None, finds_examples=False), form={"Training Tag": ["cell"]})


def sizes(bench: Bench) -> dict[int, str]:
    """The ids of the results by their width in pixels."""
    return {round(np.ptp([point["x"] for point in each["coordinates"]])): each["_id"] for each in bench.found()}


def info(bench: Bench, **form: object) -> str:
    outcome = bench.run(**form)
    assert outcome.code == 0
    return str(outcome.messages[-1]["info"])


def test_a_ring_that_is_there_stays_when_its_disc_is_added(nested: Bench) -> None:
    assert info(nested, **{"Similarity Threshold": 0.95}) == "1 added; 1 frame"
    before = sizes(nested)
    assert info(nested) == "1 added, 1 already there; 1 frame"
    assert before.items() < sizes(nested).items()
    assert len(sizes(nested)) == 2
    assert info(nested) == "0 added, 2 already there; 1 frame"
    nested.server.store.delete_annotations([max(sizes(nested).items())[1]])
    assert info(nested) == "1 added, 1 already there; 1 frame"
    assert len(sizes(nested)) == 2


def test_a_ring_of_the_user_hides_no_disc(nested: Bench) -> None:
    info(nested, **{"Similarity Threshold": 0.95})
    nested.server.store.edit_annotation(next(iter(sizes(nested).values())), EDITED)
    assert info(nested) == "1 added, 1 already there; 1 frame"


def test_a_point_stands_for_the_innermost_object(nested: Bench) -> None:
    point = [{"x": 60.5, "y": 60.5}]
    nested.server.store.add_annotation(nested.dataset, tags=["found"], shape="point", coordinates=point)
    assert info(nested) == "1 added, 1 already there; 1 frame"
    assert 52 < max(sizes(nested)) < 54


def known(name: str, outline: Polygon) -> StoredAnnotation:
    return StoredAnnotation(name, "polygon", vertices(outline.exterior), b"")


def ids(matches: list[Match | None]) -> list[str | None]:
    return [each and each.known.id for each in matches]


def test_each_annotation_is_that_of_one_outline() -> None:
    outer, inner = known("outer", OUTER), known("inner", INNER)
    assert ids(match([OUTER, INNER], [outer])) == ["outer", None]
    assert ids(match([INNER, OUTER], [outer])) == [None, "outer"]
    assert ids(match([INNER], [outer])) == ["outer"]
    assert ids(match([OUTER, INNER], [inner, outer])) == ["outer", "inner"]
    # The better one is taken, so the next is looked for.
    assert ids(match([OUTER, INNER.buffer(1)], [known("middle", OUTER.buffer(-1)), inner])) == ["middle", "inner"]
    assert ids(match([OUTER], [])) == [None]
    assert match([], [outer]) == []


def test_the_area_is_that_of_the_outline_without_its_hole(nested: Bench) -> None:
    info(nested, **{"Similarity Threshold": 0.95})
    (figures,) = nested.values().values()
    rows, columns = np.mgrid[:96, :96]
    assert figures["Area"] == np.count_nonzero(np.hypot(rows - 60, columns - 60) <= 26)
