"""Pure measures of masks and rankings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]


def mask_iou(one: Mask, other: Mask) -> float:
    """Intersection over union.

    Parameters
    ----------
    one, other
        Masks of one shape.

    Returns
    -------
    float
        0 to 1; 0 if both are empty.

    Examples
    --------
    >>> import numpy as np
    >>> mask_iou(np.array([True, True]), np.array([True, False]))
    0.5
    """
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def average_precision(scores: NDArray[np.float64], wanted: Mask) -> float:
    """Average precision of a ranking.

    Parameters
    ----------
    scores
        Higher is better.
    wanted
        Which entries are right.

    Returns
    -------
    float
        Mean precision over the right entries.

    Examples
    --------
    >>> import numpy as np
    >>> average_precision(np.array([0.9, 0.8, 0.1]), np.array([True, False, True]))
    0.8333333333333333
    """
    right = wanted[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].mean()) if right.any() else 0.0


def count_hits(found: list[Mask], labels: NDArray[np.integer], threshold: float = 0.5) -> tuple[int, int, int]:
    """Match found masks one to one with labelled objects, the best pairs first.

    Parameters
    ----------
    found
        Predicted masks.
    labels
        0 is background.
    threshold
        Smallest IoU of a hit.

    Returns
    -------
    tuple
        Hits, found masks and labelled objects.
    """
    sizes = np.bincount(labels.ravel())
    objects = np.flatnonzero(sizes[1:]) + 1
    pairs = []
    for index, mask in enumerate(found):
        area = int(mask.sum())
        inside = np.bincount(labels[mask], minlength=len(sizes))
        for name in (np.flatnonzero(inside[1:]) + 1).tolist():
            iou = inside[name] / (area + sizes[name] - inside[name])
            if iou >= threshold:
                pairs.append((float(iou), index, name))
    used: set[int] = set()
    taken: set[int] = set()
    for _, index, name in sorted(pairs, reverse=True):
        if index not in used and name not in taken:
            used.add(index)
            taken.add(name)
    return len(used), len(found), len(objects)


def centre_of(mask: Mask) -> tuple[int, int]:
    """Find the pixel that is farthest from the edge.

    Parameters
    ----------
    mask
        One object.

    Returns
    -------
    tuple
        x, y.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return int(column), int(row)


def aligned_edge(found: Mask, truth: Mask, step: int = 32, run: int = 20) -> bool:
    """Whether a mask has a straight edge on the lines of the attention windows where the object has none.

    Parameters
    ----------
    found, truth
        Masks in input pixels (512 x 512).
    step
        Distance of the lines.
    run
        Shortest straight piece that counts, in pixels.

    Returns
    -------
    bool
        True if there is one.
    """
    rim = truth ^ ndimage.binary_erosion(truth, border_value=1)
    near = ndimage.binary_dilation(rim, iterations=4)
    for mask, close in ((found, near), (found.T, near.T)):
        change = (mask[:, 1:] != mask[:, :-1]) & ~close[:, 1:]
        for line in range(step, mask.shape[1], step):
            for column in (line - 2, line - 1, line):
                pieces, _ = ndimage.label(change[:, column])
                if pieces.any() and int(np.bincount(pieces)[1:].max()) >= run:
                    return True
    return False
