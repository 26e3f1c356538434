"""What to mark next: the few places of a result whose answer, right or wrong, would teach most.

An answer teaches where the program is in doubt, and where nothing of the same look was answered yet: ten places next to
the threshold are often ten times the same thing. And answers about objects of all scores teach what the scores are
worth. So the list has both, by turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

from sam2_fewshot.annotations.record import figure
from sam2_fewshot.images.addresses import image_title
from sam2_fewshot.records import Kind, Location

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.annotations.record import FrameRecord
    from sam2_fewshot.records import Detection

PLACES = 10
"""So many places are listed."""
_MOST = 100_000
_THRESHOLD, _SCORE = 1, 2
"""Rows of what :class:`Asking` retains."""
_EDGE = 1e-4
"""Scores nearer to 0 or 1 than this count as this far away: beyond it they tell nothing more."""
_WIDTH = 2.0
"""Log-odds from the threshold at which the doubt has fallen to .8 of what it is there."""
_FARTHEST = 3.0
"""Looks differ by so many spreads from the middle at most, so that a list does not consist of oddities."""
_STRATA, _NEAR = 5, 0.02
"""So many places lie at even distances in the order of the scores, and what is as near to one as this share of all is
as good as what lies there."""
_ALIKE = 1e-3
"""Squared distance of looks that are the same: where all are, the doubt alone decides."""


class Candidates(NamedTuple):
    """Detections, and candidates below the threshold, of all frames.

    Parameters
    ----------
    frame
        int64 (n,), number of the frame that each lies on, from 0.
    score, threshold
        float64 (n,), in [0, 1]: its score, and the one that it needs.
    looks
        float64 (n, D), what it looks like; NaN where that is not known.
    """

    frame: NDArray[np.int64]
    score: NDArray[np.float64]
    threshold: NDArray[np.float64]
    looks: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A place to mark.

    Parameters
    ----------
    image, position
        The image file's name, with folders where several images have that name, and the position's where it has
        several.
    frame
        What to call the frame.
    location
        Of the frame.
    number
        Of the object on its frame, from 1, as in the label image; what lies below the threshold follows.
    x, y
        Its middle in image pixels.
    score
        Its score.
    area
        In pixels.
    """

    image: str
    position: str
    frame: str
    location: Location
    number: int
    x: float
    y: float
    score: float
    area: int

    @property
    def title(self) -> str:
        """What to call the image; see :attr:`FrameRecord.title`."""
        return image_title(self.image, self.position)

    def facts(self) -> dict[str, object]:
        """Return what ``run.json`` says; places count from 1, as for frames there."""
        return {
            "image": self.image,
            "position": self.position,
            "xy": self.location.xy + 1,
            "z": self.location.z + 1,
            "time": self.location.time + 1,
            "number": self.number,
            "x": figure(self.x, 1),
            "y": figure(self.y, 1),
            "score": figure(self.score),
            "area_px": self.area,
        }


def most_instructive(candidates: Candidates, count: int = PLACES, asked: Sequence[int] = ()) -> list[int]:
    """Return the indices of the candidates whose answers would teach most, the first one first.

    Each second one, from the first on, is that for which doubt × distance² is largest: the doubt p (1 - p) of a
    logistic whose middle is the threshold, and the squared distance of its looks and its log-odds, each in units of its
    spread, from the nearest one that is listed already. This is the greedy form of k-means++ (Arthur & Vassilvitskii
    2007) with doubt as the weight, as in BADGE (Ash et al. 2020). On a frame that `n` others of the list lie on, it
    counts 1 / (1 + n) of that.

    The others lie at even distances in the order of the scores, however far from the threshold, the highest first: a
    tenth of all lies above the first, three tenths above the second. Of those that are as near to such a place on
    several frames, it is one on a frame that fewest of the list lie on.

    Nothing is random, and the first of a longer list are those of a shorter one.

    Parameters
    ----------
    candidates
        Of all frames.
    count
        So many at most.
    asked
        Indices of those that are asked about already, in that order: the list goes on from there.
    """
    total = len(candidates.score)
    if not total:
        return []
    odds = _log_odds(candidates.score) - _log_odds(candidates.threshold)
    doubt = 1 / (2 + np.exp(odds / _WIDTH) + np.exp(-odds / _WIDTH))  # p (1 - p)
    looks = _standardised(np.column_stack([odds, candidates.looks]))
    on_frame = np.zeros(int(candidates.frame.max()) + 1)
    apart = np.ones(total)
    rank = np.argsort(np.argsort(-odds, kind="stable"), kind="stable")
    is_left = np.ones(total, bool)
    chosen: list[int] = []
    for number in range(min(len(asked) + count, total)):
        on_frames = on_frame[candidates.frame]
        if number < len(asked):
            best = asked[number]
        elif number % 2:
            best = _at_even_distances(rank, number // 2, is_left, on_frames)
        else:
            best = int(np.argmax(np.where(is_left, doubt * (apart + _ALIKE) / (1 + on_frames), -1.0)))
        distance = ((looks - looks[best]) ** 2).sum(axis=1)
        apart = np.minimum(apart, distance) if chosen else distance
        on_frame[candidates.frame[best]] += 1
        is_left[best] = False
        chosen.append(best)
    return chosen[len(asked) :]


def _at_even_distances(
    rank: NDArray[np.int64], number: int, is_left: NDArray[np.bool_], on_frames: NDArray[np.float64]
) -> int:
    """Return the candidate at a place in the order of the scores, of those that are left.

    `rank` (n,) is 0 for the highest score, and `on_frames` (n,) how many of the list lie on the frame of each.
    """
    total = len(rank)
    away = np.where(is_left, np.abs(rank - int((number % _STRATA + 0.5) / _STRATA * total)), np.inf)
    is_near = away <= max(_NEAR * total, away.min())
    return int(np.argmin(np.where(is_near & (on_frames == on_frames[is_near].min()), away, np.inf)))


def _log_odds(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    within = np.clip(np.nan_to_num(scores), _EDGE, 1 - _EDGE)
    odds: NDArray[np.float64] = np.log(within / (1 - within))
    return odds


def _standardised(looks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return looks in units of their spread, from their median; what is not known counts as the median."""
    known = np.where(np.isfinite(looks), looks, np.nan)
    known = known[:, np.isfinite(known).any(axis=0)]
    if not known.size:
        return known
    low, middle, high = np.nanpercentile(known, (16, 50, 84), axis=0)
    spread = (high - low) / 2
    spread[spread < 1e-9] = np.inf  # what is the same for most tells nothing
    standardised: NDArray[np.float64] = np.nan_to_num((known - middle) / spread)
    return np.clip(standardised, -_FARTHEST, _FARTHEST)


class Asking:
    """Gathers what was found on some frames, one after the other, and chooses the places to mark.

    What the user marked or confirmed is not asked again.

    Parameters
    ----------
    most
        The figures of so many candidates are retained, or of twice as many for a while; of more, those of the most
        doubtful ones.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._frames: list[tuple[str, str, str, Location]] = []
        self._columns: list[NDArray[np.float64]] = []
        self._held = 0

    def add(self, record: FrameRecord) -> None:
        """Take a finished frame; of its objects, only a few figures are retained."""
        numbered = [(number, item) for number, item in enumerate(asked_about(record), 1) if not item.is_marked]
        if numbered:
            table = _table(numbered)
            about = np.full((2, len(numbered)), [[len(self._frames)], [record.threshold]])
            self._columns.append(np.concatenate([about, table]))
            self._frames.append((record.full_name, record.position, record.frame_title, record.location))
            self._held += len(numbered)
            if self._held > 2 * self._most:
                self._thin()

    def _thin(self) -> None:
        columns = np.concatenate(self._columns, axis=1)
        distance = np.abs(_log_odds(columns[_SCORE]) - _log_odds(columns[_THRESHOLD]))
        kept = np.sort(np.argsort(distance, kind="stable")[: self._most])
        self._columns, self._held = [columns[:, kept]], len(kept)

    def places(self, count: int = PLACES) -> list[Suggestion]:
        """Return the places whose answers would teach most, the first one first."""
        if not self._columns:
            return []
        frame, threshold, *table = np.concatenate(self._columns, axis=1)
        candidates = _candidates(frame, threshold, table)
        score, number, x, y, area = table[:5]
        return [
            Suggestion(
                *self._frames[int(frame[i])],
                number=int(number[i]),
                x=float(x[i]),
                y=float(y[i]),
                score=float(score[i]),
                area=int(area[i]),
            )
            for i in most_instructive(candidates, count)
        ]


def next_of(found: Sequence[Detection], frames: Sequence[int], threshold: float, asked: Sequence[int]) -> int | None:
    """Return the index of the object whose answer would teach most, None where all are asked about.

    Parameters
    ----------
    found
        Detections, and candidates below the threshold, of any frames.
    frames
        Number of the frame that each lies on, from 0.
    threshold
        The score that an object needs.
    asked
        Indices of those that were asked about, in that order.
    """
    if not found:
        return None
    candidates = _candidates(np.array(frames), np.full(len(found), threshold), _table(list(enumerate(found))))
    return next(iter(most_instructive(candidates, 1, asked)), None)


def asked_about(record: FrameRecord) -> list[Detection]:
    """Return the objects of a frame that a report displays, in the order of their numbers: all but the examples."""
    return [*(item for item in record.detections if item.kind != Kind.EXAMPLE), *record.below]


def _candidates(
    frame: NDArray[np.number],
    threshold: NDArray[np.float64],
    table: Sequence[NDArray[np.float64]] | NDArray[np.float64],
) -> Candidates:
    """Return what the list is chosen from; `table` is as :func:`_table` gives it."""
    score, _, _, _, area, *looks = table
    return Candidates(frame.astype(np.int64), score, threshold, np.stack([np.log(area), *looks], axis=1))


def _table(numbered: Sequence[tuple[int, Detection]]) -> NDArray[np.float64]:
    """Return the score, number, x, y, area, roundness, similarity and predicted IoU (8, n) of each object."""
    outlines = np.array([item.polygon for _, item in numbered], object)
    middle = shapely.centroid(outlines)
    roundness = 4 * np.pi * shapely.area(outlines) / np.maximum(shapely.length(outlines), 1e-9) ** 2
    figures = [(number, item.area, item.score, item.similarity, item.predicted_iou) for number, item in numbered]
    number, area, score, similarity, predicted_iou = np.array(figures, np.float64).T
    return np.stack(
        [score, number, shapely.get_x(middle), shapely.get_y(middle), area, roundness, similarity, predicted_iou]
    )
