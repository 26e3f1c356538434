"""Other kinds of objects: what looks like the examples, but is clearly apart from all of them in one measure.

Users mark some objects of one kind. Whatever else lies on the same frames was not marked, and may be of that kind or
not; the classifier learns from parts, unions and ground that the examples are none of these, but nothing tells it that
square objects are not wanted where only round ones were marked. If the detections on the examples' frames fall into two
groups with a gap between them, though, and all examples are in one, that is no chance: had ten been drawn from both,
all would be in the one that holds a share of the detections with a probability of ``share ** 10``. Then what lies
beyond the gap is of another kind.

Each measure is looked at by itself, and only those that neither what was learned nor a pixel more or less at the border
changes: the former favours the examples in any case, by the latter two outlines of like objects differ. Groups as
clearly apart do not come about where objects of one kind differ, in size for instance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.methods.guided.box_refinement import non_overlapping
from sam2_fewshot.methods.guided.classifier import AWAY, EVEN_CHANCES
from sam2_fewshot.methods.guided.descriptors import CORE_CONTRAST, ELONGATION, FILLING, LOG_AREA
from sam2_fewshot.methods.selection import otsu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.methods.guided.classifier import TrainingCandidates, TrainingTable
    from sam2_fewshot.records import InstanceMask

_APART = 6.0
"""Ashman's D from which on two groups are clearly apart. Of two normal distributions it is 2 where their sum has two
peaks (Ashman, Bird & Zepf 1994); but the split that fits best finds two groups in anything. Of 3,000 samples of sixty
from a normal, a uniform and an exponential distribution, the ten largest marked, none has more than 5.7; 48 runs on
real images, whichever objects were marked, have 3.5 at most; and scenes of two or three kinds 6.8 to 132."""
_CHANCE = 0.01
"""Probability that all examples lie in one group by chance from which on that tells nothing."""
_SAME = 0.6
"""IoU from which on a candidate is a marked object."""
_FEWEST = 3
"""So many detections of another kind at least: one or two are odd ones of the same."""
_MEASURES = {
    LOG_AREA: ("size", 0.4),
    ELONGATION: ("elongation", 0.15),
    FILLING: ("shape", 0.02),
    CORE_CONTRAST: ("brightness", 0.5),
}
"""The descriptors that are looked at, what they are of, and by how much two kinds differ in them at least: one is half
as large again, one axis a sixth shorter, half of what tells a disc from a square (1 and .955), half the standard
deviation of the frame. Less is a matter of the outlines."""
_LESS = 4.0
"""By so many log-odds less an object of another kind is judged: hardly any of them counts then, and who lowers the
threshold far enough still sees them."""


class Divide(NamedTuple):
    """Where a gap divides the wanted objects from those of another kind.

    Parameters
    ----------
    measure
        Which descriptor.
    at
        Its value in the middle of the gap.
    above
        Whether the wanted ones lie above it.
    """

    measure: int
    at: float
    above: bool


def divides(
    examples: NDArray[np.float64],
    others: NDArray[np.float64],
    unwanted: NDArray[np.float64] | None = None,
    *,
    proven: bool = True,
) -> list[Divide]:
    """Return where other kinds are divided from the examples', the widest gap first.

    Parameters
    ----------
    examples
        float64 (n, D), their descriptors.
    others
        float64 (m, D), of unmarked detections on the same frames.
    unwanted
        float64 (u, D), of the negative examples. A group that holds some is of another kind whatever the chances are.
    proven
        Whether it has to be improbable that all examples lie in one group by chance. Otherwise some of the others have
        to be in it as well.
    """
    found: list[Divide] = []
    unwanted = examples[:0] if unwanted is None else unwanted
    while len(examples):
        gaps = [gap for measure in _MEASURES if (gap := _gap(examples, others, unwanted, measure, proven=proven))]
        if not gaps:
            break
        found.append(max(gaps, key=lambda gap: gap[0])[1])
        # Of three kinds two look like one group until the third is gone.
        others, unwanted = (rows[~of_another_kind(rows, found[-1:])] for rows in (others, unwanted))
    return found


def of_another_kind(features: NDArray[np.float64], kinds: Sequence[Divide]) -> NDArray[np.bool_]:
    """Return which rows of descriptors (N, D) lie beyond one of the gaps, boolean (N,)."""
    other = np.zeros(len(features), bool)
    for measure, at, above in kinds:
        other |= (features[:, measure] >= at) != above
    return other


def less_for_kind(features: NDArray[np.float64], kinds: Sequence[Divide]) -> NDArray[np.float64]:
    """Return by how many log-odds less each row of descriptors (N, D) is judged for its kind, float64 (N,)."""
    less: NDArray[np.float64] = np.where(of_another_kind(features, kinds), _LESS, 0.0)
    return less


def in_words(others: NDArray[np.float64], kinds: Sequence[Divide]) -> str | None:
    """Return a sentence that tells the user what counts as objects of another kind; None if there is nothing to tell.

    Parameters
    ----------
    others
        float64 (m, D), descriptors of the unmarked detections on the examples' frames.
    kinds
        What divides some of them from the examples.
    """
    count = int(of_another_kind(others, kinds).sum())
    if not count:
        return None
    names = " or ".join(dict.fromkeys(_MEASURES[kind.measure][0] for kind in kinds))
    return (
        f"Objects on the same images that are clearly apart from all examples in their {names} count as of another "
        f"kind ({count} unmarked). If they are wanted, mark some as well."
    )


def is_by_size(kinds: Sequence[Divide]) -> bool:
    """Tell whether the size is what divides the wanted objects from others."""
    return any(kind.measure == LOG_AREA for kind in kinds)


def compared(
    table: TrainingTable, frames: Sequence[TrainingCandidates], unseen: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return descriptors of what is detected: of the examples, of unmarked objects, and of the negative examples.

    Parameters
    ----------
    table, frames
        The candidates on the examples' frames.
    unseen
        float64 (N,), log-odds of its rows by classifiers that have not seen the example that a row is about. What has
        even chances or better counts as detected, but for negative examples, which are judged lower for being marked:
        the threshold is chosen when it is known what is of another kind.
    """
    of_examples = [
        np.flatnonzero(table.right & (table.owner == owner)) for owner in np.unique(table.owner[table.right])
    ]
    best = [int(rows[np.argmax(unseen[rows])]) for rows in of_examples]
    others: list[int] = []
    unwanted: list[int] = []
    begun = 0
    for frame in frames:
        first, end = begun + frame.drawn, begun + len(frame.masks)
        proposed = frame.masks[frame.drawn :]
        detected = non_overlapping(proposed, unseen[first:end])
        others += [first + i for i in detected if table.label[first + i] == AWAY and unseen[first + i] >= EVEN_CHANCES]
        unwanted += [first + i for i in as_detected(frame.negatives, proposed, unseen[first:end])]
        begun = end
    return table.features[best], table.features[others], table.features[unwanted]


def as_detected(
    marked: Sequence[InstanceMask], candidates: Sequence[InstanceMask], odds: NDArray[np.float64]
) -> list[int]:
    """Return the index of the likeliest candidate of each marked object that has one.

    Their descriptors can be compared with those of detections; those of outlines that a user drew cannot, whose borders
    are steeper, or less so.
    """
    rows = []
    for mask in marked:
        alike = [i for i, candidate in enumerate(candidates) if mask_iou(candidate, mask) >= _SAME]
        if alike:
            rows.append(max(alike, key=lambda i: odds[i]))
    return rows


def _gap(
    examples: NDArray[np.float64],
    others: NDArray[np.float64],
    unwanted: NDArray[np.float64],
    measure: int,
    *,
    proven: bool,
) -> tuple[float, Divide] | None:
    """Return how far two groups lie apart in a measure, and where; None where they are not clearly two."""
    marked, rest, bad = examples[:, measure], others[:, measure], unwanted[:, measure]
    while np.ptp(np.concatenate([marked, rest, bad])) > 0:
        at = otsu(np.concatenate([marked, rest, bad]))
        above = bool(marked[0] >= at)
        if ((marked >= at) != above).any():
            return None
        beyond, bad_beyond = (rest >= at) != above, (bad >= at) != above
        far = np.concatenate([rest[beyond], bad[bad_beyond]])
        alike = np.count_nonzero(~beyond)
        # Laplace's rule of succession: that none was seen does not mean that there are none.
        by_chance = ((alike + 1) / (len(rest) + 2)) ** len(marked)
        is_kind = bad_beyond.any() or by_chance <= _CHANCE if proven else alike > 0
        rest, bad = rest[~beyond], bad[~bad_beyond]
        apart, difference = _apart(np.concatenate([marked, rest, bad]), far)
        if is_kind and len(far) >= _FEWEST and apart >= _APART and difference >= _MEASURES[measure][1]:
            return apart, Divide(measure, at, above)
        # Three groups in a row are not clearly two; those beside the examples' own may be.
    return None


def _apart(near: NDArray[np.float64], far: NDArray[np.float64]) -> tuple[float, float]:
    """Return Ashman's D of two groups of values, neither empty, and the difference of their means."""
    difference = abs(float(near.mean() - far.mean()))
    return difference / max(math.sqrt((near.var() + far.var()) / 2), 1e-12), difference
