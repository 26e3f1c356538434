"""What to mark next: which places are chosen, and that every file says the same of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam2_fewshot.annotations.mark_next import PLACES, Asking, Candidates, asked_about, most_instructive
from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.records import Detection, InstanceMask, Kind, Location

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (100, 1000)


def candidates(
    score: Sequence[float] | NDArray[np.float64], looks: object = None, frame: object = None, threshold: float = 0.5
) -> Candidates:
    count = len(score)
    alike = np.zeros((count, 2)) if looks is None else np.asarray(looks, np.float64).reshape(count, -1)
    frames = np.zeros(count, np.int64) if frame is None else np.asarray(frame, np.int64)
    return Candidates(frames, np.asarray(score, np.float64), np.full(count, threshold), alike)


def many(count: int, seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    return candidates(rng.beta(1, 2, count), rng.normal(size=(count, 5)), rng.integers(0, 7, count))


def test_nothing_is_chosen_of_nothing():
    assert most_instructive(candidates([])) == []
    assert most_instructive(many(30), 0) == []


def test_of_few_all_are_chosen():
    assert sorted(most_instructive(many(4))) == [0, 1, 2, 3]
    assert most_instructive(candidates([0.7])) == [0]


def test_each_is_chosen_once_and_always_the_same_ones():
    chosen = most_instructive(many(300))
    assert len(set(chosen)) == len(chosen) == PLACES
    assert chosen == most_instructive(many(300))


def test_a_longer_list_begins_with_the_shorter_one():
    assert most_instructive(many(300), 25)[:10] == most_instructive(many(300), 10)


@pytest.mark.parametrize("what", ["one column", "all", "some"])
def test_figures_that_are_not_known(what):
    looks = many(60).looks.copy()
    looks[:, 2] = np.nan if what == "one column" else looks[:, 2]
    looks[:] = np.nan if what == "all" else looks
    looks[::3, 1] = np.nan if what == "some" else looks[::3, 1]
    known = many(60)._replace(looks=looks)
    assert len(set(most_instructive(known))) == PLACES


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(allow_infinity=True, allow_nan=True), st.integers(0, 3)),
        max_size=40,
    )
)
def test_whatever_the_figures_are(rows: list[tuple[float, float, float, int]]) -> None:
    score, threshold, look, frame = (np.array([row[i] for row in rows], np.float64) for i in range(4))
    chosen = most_instructive(Candidates(frame.astype(np.int64), score, threshold, look[:, None]))
    assert len(set(chosen)) == len(chosen) == min(PLACES, len(rows))


def test_places_are_spread_over_looks():
    # Forty of one look are the most doubtful; three others look otherwise.
    looks = [[0.0, 0.0]] * 40 + [[3.0, 0.0], [0.0, 3.0], [-3.0, -3.0]]
    score = [0.5] * 40 + [0.4, 0.6, 0.6]
    jitter = np.random.default_rng(0).normal(scale=0.3, size=(43, 2))
    assert {40, 41, 42} <= set(most_instructive(candidates(score, np.array(looks) + jitter)))


def test_places_are_spread_over_frames():
    # The same candidates on five frames.
    looks = np.tile(many(20).looks, (5, 1))
    score, frame = np.tile(many(20).score, 5), np.repeat(np.arange(5), 20)
    chosen = most_instructive(candidates(score, looks, frame))
    assert np.bincount(frame[chosen]).tolist() == [2] * 5


def test_each_second_place_lies_at_even_distances_in_the_order_of_scores():
    shuffled = np.random.default_rng(1).permutation(200)
    score = 0.05 + 0.9 * shuffled / 200
    chosen = most_instructive(candidates(score, many(200).looks))
    assert shuffled[chosen[1::2]] / 200 == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1], abs=0.03)


@pytest.mark.parametrize("count", [0, 1, 4, 9])
def test_a_list_goes_on_where_it_was_left(count: int):
    whole = most_instructive(many(60))
    assert most_instructive(many(60), PLACES - count, whole[:count]) == whole[count:]


def test_all_frames_of_thousands_of_candidates():
    assert len(set(most_instructive(many(20_000)))) == PLACES


def disc(x: int, radius: int, score: float, kind: Kind = Kind.FOUND, location: Location | None = None) -> Detection:
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    mask = InstanceMask(rows**2 + columns**2 <= radius**2, x - radius, 50 - radius, SHAPE)
    return Detection(mask, mask_to_polygon(mask), score, np.nan, np.nan, location or Location(), kind)


def a_frame(location: Location, **changes: object) -> FrameRecord:
    """One confirmed, three found, two examples, two below; each 60 px to the right of the one before."""
    kinds = [Kind.CONFIRMED, *[Kind.FOUND] * 3, *[Kind.EXAMPLE] * 2]
    scores = [1.0, 0.9, 0.8, 0.6, 1.0, 1.0]
    objects = [disc(40 + 60 * i, 5 + i, *pair, location) for i, pair in enumerate(zip(scores, kinds, strict=True))]
    below = [disc(40 + 60 * (6 + i), 11 + i, score, location=location) for i, score in enumerate((0.4, 0.2))]
    base = {"detections": tuple(objects), "below": tuple(below), "threshold": 0.5, "floor": 0.05}
    return FrameRecord("a.tif", "a", location, SHAPE, **{**base, **changes})  # type: ignore[arg-type]


def test_what_the_user_marked_is_not_asked_again():
    asking = Asking()
    asking.add(a_frame(Location()))
    places = asking.places()
    assert sorted(place.number for place in places) == [2, 3, 4, 5, 6]
    assert {place.number: round(place.x) for place in places} == {2: 100, 3: 160, 4: 220, 5: 400, 6: 460}
    for place in places:
        item = asked_about(a_frame(Location()))[place.number - 1]
        assert (place.score, place.area) == (item.score, item.area)


def test_of_very_many_only_the_doubtful_are_retained():
    asking = Asking(most=6)
    for xy in range(5):  # five of each are asked about
        asking.add(a_frame(Location(xy)))
    places = asking.places(30)
    assert len(places) <= 12
    assert {round(place.score, 1) for place in places if place.location.xy < 2} == {0.4, 0.6}
    for place in places:
        assert asked_about(a_frame(place.location))[place.number - 1].score == place.score


def test_places_tell_their_frames():
    asking = Asking()
    asking.add(a_frame(Location(2, 1, 0), size_z=3, position="B02"))
    place = asking.places(1)[0]
    assert (place.title, place.frame) == ("a.tif B02", "a.tif B02 Z 2")
    facts = place.facts()
    assert (facts["image"], facts["position"], facts["xy"], facts["z"], facts["time"]) == ("a.tif", "B02", 3, 2, 1)


def test_no_places_where_nothing_is_found():
    asking = Asking()
    assert asking.places() == []
    asking.add(a_frame(Location(), detections=(), below=()))
    asking.add(a_frame(Location(), detections=(disc(40, 5, 1.0, Kind.EXAMPLE),), below=()))
    assert asking.places() == []


def test_run_json_lists_the_places(tmp_path: Path) -> None:
    records = [a_frame(Location(0)), a_frame(Location(1))]
    summary = assemble(records, tmp_path)
    listed = json.loads((tmp_path / "run.json").read_text())["mark_next"]
    assert listed == [place.facts() for place in summary.mark_next]
    assert len(listed) == 10
    assert {place["xy"] for place in listed} == {1, 2}
    assert set(listed[0]) == {"image", "position", "xy", "z", "time", "number", "x", "y", "score", "area_px"}
    assemble([], tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["mark_next"] == []
