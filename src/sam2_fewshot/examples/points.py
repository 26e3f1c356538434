"""Points and boxes as examples: the masks that the backbone proposes for each, and the choice of those that agree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from sam2_fewshot.geometry.overlap import grown
from sam2_fewshot.records import whole_box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone, PromptedMasks
    from sam2_fewshot.records import Box, InstanceMask

_LARGEST_SHARE = 0.5
"""A mask that fills more of its window than this is the background, or an object that needs a wider window."""
_FITS = 0.5
"""IoU of a mask's bounding box with the box that was marked, below which the mask is of something else."""
_CORE = 4
"""Points at most this part of a window's side from its middle share the window, so that an object is whole in it as
long as it is no larger than half the window."""


@dataclass(frozen=True, eq=False, slots=True)
class PointMask:
    """A mask that holds a point, or fits into a box.

    Parameters
    ----------
    mask
        Of the frame.
    predicted_iou
        The backbone's own estimate of its quality, in [0, 1]; of a box's mask, times how well it fits the box.
    is_whole
        Whether it ends within the window that it was prompted in.
    """

    mask: InstanceMask
    predicted_iou: float
    is_whole: bool


def masks_at_points(
    backbone: Backbone, pixels: NDArray[np.uint8], points: Sequence[tuple[float, float]]
) -> list[list[PointMask]]:
    """Return the masks that the backbone gives for each of several points of a frame.

    The sizes of the objects are not known, and a backbone sees an object best when it is neither tiny nor larger than
    its input; so each point is prompted in windows of several sizes, from the whole frame down to a quarter of the
    input, and gives several masks in each. Points near each other share their windows, each of which is encoded once.

    Parameters
    ----------
    backbone
        Encodes windows and decodes the prompts.
    pixels
        uint8 RGB (H, W, 3).
    points
        ``(x, y)`` in image pixels, inside the frame.

    Returns
    -------
    list of list of PointMask
        For each point the masks that hold it and fill at most half of their window, whole ones if there are any, in
        the order of the windows from the largest; none where there is no object.
    """
    height, width = pixels.shape[:2]
    found: list[list[PointMask]] = [[] for _ in points]
    for window, numbers in _windows(points, (height, width), backbone.input_size):
        x0, y0, x1, y1 = window
        embedding = backbone.embed(pixels[y0:y1, x0:x1])
        local = np.array([points[i] for i in numbers]) - (x0, y0)
        # In image pixels a pixel's centre has the fraction .5, in prompts it is a whole number.
        scale = input_scale(window, backbone.input_size)
        prompts = (local * scale - 0.5).astype(np.float32)
        answer = backbone.prompt(embedding, prompts)
        for prompt, item in masks_of(answer, window, (height, width)):
            if may_be_at(points[numbers[prompt]], item.mask, window):
                found[numbers[prompt]].append(item)
    return [whole_ones(masks) for masks in found]


def masks_of(answer: PromptedMasks, window: Box, frame_shape: tuple[int, int]) -> Iterator[tuple[int, PointMask]]:
    """Yield the masks of a window's prompts as masks of its frame, each with the number of its prompt."""
    placed = answer.placed(window, frame_shape)
    for prompt, iou, mask in zip(answer.prompt, answer.predicted_iou, placed, strict=True):
        yield int(prompt), PointMask(mask, float(iou), not mask.is_clipped(window))


def may_be_at(point: tuple[float, float], mask: InstanceMask, window: Box) -> bool:
    """Tell whether a mask may be of the object at a point: it holds the point, and most of the window is around it."""
    column, row = int(point[0]), int(point[1])
    x0, y0, x1, y1 = window
    holds = bool(mask.window((column, row, column + 1, row + 1)).any())
    return holds and mask.area <= _LARGEST_SHARE * (x1 - x0) * (y1 - y0)


def whole_ones(masks: Sequence[PointMask]) -> list[PointMask]:
    """Return the masks that are whole, or all where none is: a piece that a window cut off says nothing of the size."""
    return [item for item in masks if item.is_whole] or list(masks)


def masks_in_boxes(
    backbone: Backbone, pixels: NDArray[np.uint8], boxes: Sequence[tuple[float, float, float, float]]
) -> list[list[PointMask]]:
    """Return the masks that the backbone gives for each of several boxes of a frame.

    Each box is prompted in windows of the sizes that points are prompted in, as far as they show it with as much around
    it, and gives one mask in each.

    Parameters
    ----------
    backbone
        Encodes windows and decodes the prompts.
    pixels
        uint8 RGB (H, W, 3).
    boxes
        ``(x0, y0, x1, y1)`` in image pixels, inside the frame.

    Returns
    -------
    list of list of PointMask
        For each box the masks whose own bounding box has an IoU of at least .5 with it, in the order of the windows
        from the largest; none where there is no object.
    """
    height, width = pixels.shape[:2]
    given = np.array(boxes, np.float64).reshape(-1, 4)
    found: list[list[PointMask]] = [[] for _ in boxes]
    middles = [(float(x), float(y)) for x, y in (given[:, :2] + given[:, 2:]) / 2]
    longest = (given[:, 2:] - given[:, :2]).max(axis=1, initial=0)
    for window, near in _windows(middles, (height, width), backbone.input_size):
        x0, y0, x1, y1 = window
        side = max(x1 - x0, y1 - y0)
        numbers = [i for i in near if longest[i] <= side / 2 or (x1 - x0, y1 - y0) == (width, height)]
        if not numbers:
            continue
        embedding = backbone.embed(pixels[y0:y1, x0:x1])
        prompts = (given[numbers] - (x0, y0, x0, y0)) * np.tile(input_scale(window, backbone.input_size), 2)
        answer = backbone.prompt_boxes(embedding, prompts.astype(np.float32))
        for prompt, item in masks_of(answer, window, (height, width)):
            fit = fit_of(item.mask, given[numbers[prompt]].tolist())
            if fit:
                found[numbers[prompt]].append(replace(item, predicted_iou=item.predicted_iou * fit))
    return found


def input_scale(window: Box, input_size: int) -> NDArray[np.float64]:
    """Return the pixels of the backbone's input for a pixel of a window, across and down."""
    x0, y0, x1, y1 = window
    return np.array([input_size / (x1 - x0), input_size / (y1 - y0)])


def fit_of(mask: InstanceMask, box: Sequence[float]) -> float:
    """Return how well a mask fits a box ``(x0, y0, x1, y1)``: the IoU of its own box with it; 0 where it does not."""
    one, (x0, y0, x1, y1) = mask.box, box
    across, down = min(one[2], x1) - max(one[0], x0), min(one[3], y1) - max(one[1], y0)
    shared = max(across, 0.0) * max(down, 0.0)
    iou = shared / ((one[2] - one[0]) * (one[3] - one[1]) + (x1 - x0) * (y1 - y0) - shared)
    return float(iou) if iou >= _FITS else 0.0


def _windows(
    points: Sequence[tuple[float, float]], shape: tuple[int, int], input_size: int
) -> list[tuple[Box, list[int]]]:
    """Return windows, each with the points that are prompted in it.

    They are the whole frame and, around the points, windows of 1, 1/2 and 1/4 of the backbone's input that are smaller.
    A window is centred on the first point that has none of its size yet.
    """
    height, width = shape
    windows: list[tuple[Box, list[int]]] = [(whole_box(shape), list(range(len(points))))]
    for side in (input_size, input_size // 2, input_size // 4):
        left = list(range(len(points))) if side < max(height, width) else []
        while left:
            x, y = points[left[0]]
            w, h = min(side, width), min(side, height)
            x0 = min(max(int(x) - w // 2, 0), width - w)
            y0 = min(max(int(y) - h // 2, 0), height - h)
            inside = [i for i in left if max(abs(points[i][0] - x), abs(points[i][1] - y)) <= side / _CORE]
            windows.append(((x0, y0, x0 + w, y0 + h), inside))
            left = [i for i in left if i not in inside]
    return windows


APPEARANCE = 4
"""Length of a mask's appearance vector."""


class _Weight(NamedTuple):
    """Weight of agreement: the cost of disagreement in predicted IoU, and the differences that cost nothing."""

    cost: float
    size: float
    contrast: float


# Chosen by measuring on scenes of several kinds with the embedded checkpoint, and confirmed on others. Outlines are
# known to be right. Points alone may agree on what is wrong, so only large differences between them cost, and of two
# points none.
_AMONG_POINTS, _WITH_OUTLINES = _Weight(1 / 6, 1.0, 0.25), _Weight(1 / 2, 0.0, 0.0)
_FEWEST_POINTS = 3
_SIZE, _CONTRAST = 4.0, 1.0
"""Differences that count in full: a factor of 55 in area, contrasts of opposite sign. Objects of one kind differ, so
small differences count little, with their square."""
_FAINT = 2.0
"""Standard deviations of the frame; contrasts below that are faint, and not compared as closely."""
_OTHER_OBJECT = 1 / 3
"""What it costs to hold another mark. Not more, since an object may be marked twice."""
_ROUNDS = 2
_MOST_CENTRES = 1000
_RING = 0.15
"""Width of the surroundings as a share of the square root of the area."""


@dataclass(frozen=True, eq=False, slots=True)
class Alternatives:
    """The masks that one point may mean.

    Parameters
    ----------
    appearance
        float64 (K, :data:`APPEARANCE`), K at least 1; see :func:`appearance`.
    predicted_iou
        float64 (K,), the backbone's own estimate of their quality, in [0, 1].
    holds_other
        Boolean (K,), whether the mask also holds another mark.
    """

    appearance: NDArray[np.float64]
    predicted_iou: NDArray[np.float64]
    holds_other: NDArray[np.bool_]


def agreeing(points: Sequence[Alternatives], outlined: NDArray[np.float64]) -> list[int]:
    """Choose a mask for each of several points, so that they look alike and their predicted IoU is high.

    A mask costs what its predicted IoU falls short of 1, more if it holds another mark, and more the more it differs in
    size and contrast from a centre. Where there are outlined examples, the centre is the median of their appearances.
    Three or more points find it in two steps: of all alternatives, the one that makes the cheapest choice for all
    points; then twice the median of what is chosen. One or two points without an outline have none.

    Parameters
    ----------
    points
        Of one kind, wanted or negative.
    outlined
        float64 (N, :data:`APPEARANCE`), the outlined examples of that kind; N may be 0.

    Returns
    -------
    list of int
        For each point the place of the chosen mask among its alternatives.
    """
    own = [1 - point.predicted_iou + _OTHER_OBJECT * point.holds_other for point in points]
    if len(outlined):
        return _nearest(points, own, np.median(outlined, axis=0), _WITH_OUTLINES)
    if len(points) < _FEWEST_POINTS:
        return [int(np.argmin(cost)) for cost in own]
    everything = np.concatenate([point.appearance for point in points])
    # Of very many alternatives a sample suffices as centres.
    centres = everything[np.linspace(0, len(everything) - 1, min(len(everything), _MOST_CENTRES)).astype(int)]
    total = np.zeros(len(centres))
    for point, cost in zip(points, own, strict=True):
        total += (cost + _disagreement(point.appearance[None], centres[:, None], _AMONG_POINTS)).min(axis=1)
    chosen = _nearest(points, own, centres[int(np.argmin(total))], _AMONG_POINTS)
    for _ in range(_ROUNDS):
        centre = np.median([point.appearance[i] for point, i in zip(points, chosen, strict=True)], axis=0)
        chosen = _nearest(points, own, centre, _AMONG_POINTS)
    return chosen


def appearance(mask: InstanceMask, pixels: NDArray[np.uint8], spread: float) -> NDArray[np.float64]:
    """Return a mask's appearance: its log-area, and for each channel the mean colour on it less that around it.

    Parameters
    ----------
    mask
        Not empty.
    pixels
        uint8 RGB (H, W, 3) of its frame.
    spread
        Unit of the colours; see :func:`spread_of`.

    Returns
    -------
    numpy.ndarray
        float64 (:data:`APPEARANCE`,).
    """
    area = mask.area
    margin = max(2, round(_RING * area**0.5))
    box = grown(mask.box, margin, mask.frame_shape)
    inside = mask.window(box)
    around = ndimage.maximum_filter(inside, 2 * margin + 1) & ~inside
    here = pixels[box[1] : box[3], box[0] : box[2]]
    level = here[inside].mean(axis=0)
    # A mask that fills the frame has no surroundings; it then differs from them by nothing.
    beyond = here[around].mean(axis=0) if around.any() else level
    return np.concatenate([[np.log(area)], (level - beyond) / spread])


def spread_of(pixels: NDArray[np.uint8]) -> float:
    """Return the standard deviation of a frame's most varied channel, in grey levels and at least one of them."""
    return max(1.0, float(pixels.reshape(-1, pixels.shape[-1]).std(axis=0).max()))


def _nearest(
    points: Sequence[Alternatives], own: Sequence[NDArray[np.float64]], centre: NDArray[np.float64], weight: _Weight
) -> list[int]:
    return [
        int(np.argmin(cost + _disagreement(point.appearance, centre, weight)))
        for point, cost in zip(points, own, strict=True)
    ]


def _disagreement(a: NDArray[np.float64], b: NDArray[np.float64], weight: _Weight) -> NDArray[np.float64]:
    """Return what it costs that appearances (…, :data:`APPEARANCE`) differ."""
    difference = np.abs(a - b)
    # Of bright and less bright objects on one frame the contrasts differ by a factor, so it is the ratio that counts.
    contrasts = (difference[..., 1:] / (np.abs(a) + np.abs(b) + _FAINT)[..., 1:]).mean(axis=-1)
    size = ((difference[..., 0] - weight.size) / (_SIZE - weight.size)).clip(0, 1)
    contrast = ((contrasts - weight.contrast) / (_CONTRAST - weight.contrast)).clip(0, 1)
    cost: NDArray[np.float64] = weight.cost * (size**2 + contrast**2)
    return cost
