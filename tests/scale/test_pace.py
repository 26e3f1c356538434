"""How long the rest of a run will take, and how that is said."""

from __future__ import annotations

import pytest

from sam2_fewshot.runner.progress import Pace, about, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def frames(pace: Pace, clock: Clock, *seconds: float) -> float:
    """Let frames take so long, and return what is left."""
    for each in seconds:
        clock.now += each
        pace.frame_done()
    left = pace.left()
    assert left is not None
    return left


def test_nothing_is_known_before_the_first_frame_has_ended(clock: Clock) -> None:
    pace = Pace(clock)
    assert pace.left() is None
    pace.begin(5)
    clock.now += 60
    assert pace.left() is None
    pace.frame_done()
    assert pace.left() == 240
    pace.begin(3)  # another run
    assert pace.left() is None


def test_it_is_the_mean_of_those_that_ended(clock: Clock) -> None:
    pace = Pace(clock)
    pace.begin(10)
    assert frames(pace, clock, 10, 20, 30) == pytest.approx(140)
    assert frames(pace, clock, *[20] * 7) == 0
    assert pace.taken == 200


def test_between_two_frames_it_falls_with_the_time(clock: Clock) -> None:
    pace = Pace(clock)
    pace.begin(3)
    assert frames(pace, clock, 10) == 20
    clock.now += 4
    assert pace.left() == 16
    clock.now += 6
    assert pace.left() == 10


def test_a_frame_that_takes_long_slows_the_pace(clock: Clock) -> None:
    pace = Pace(clock)
    pace.begin(3)
    frames(pace, clock, 10)
    clock.now += 50
    assert pace.left() == 30  # two frames in 60 s, and one left after the one at hand
    assert frames(pace, clock, 0) == 30


def test_a_slow_beginning_is_forgotten(clock: Clock) -> None:
    pace = Pace(clock)
    pace.begin(100)
    frames(pace, clock, 600)
    assert frames(pace, clock, *[1] * 20) == pytest.approx(79)


def test_frames_side_by_side(clock: Clock) -> None:
    pace = Pace(clock)
    pace.begin(8)
    assert frames(pace, clock, 10, 0, 0, 0) == 10  # four at a time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.25, "4.2 s"), (59.4, "59 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "a few seconds"),
        (4.9, "a few seconds"),
        (7.4, "about 7 s"),
        (43, "about 45 s"),
        (89, "about 90 s"),
        (200, "about 3 min"),
        (5399, "about 90 min"),
        (9000, "about 2.5 h"),
    ],
)
def test_about(seconds: float, text: str) -> None:
    assert about(seconds) == text
