"""What SAM 2 gives: embeddings of images, and masks of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor


class Embedding(NamedTuple):
    """What SAM 2's encoder makes of one image.

    Parameters
    ----------
    image_embed
        (1, C, h, w), the coarse features with the "no memory" token added.
    high_res
        (1, C / 8, 4h, 4w) and (1, C / 4, 2h, 2w), the finer features that the decoder takes.
    frame_shape
        ``(height, width)`` of the image in pixels.
    """

    image_embed: Tensor
    high_res: tuple[Tensor, Tensor]
    frame_shape: tuple[int, int]


class PromptedMasks(NamedTuple):
    """Masks that prompts gave and that passed both gates, in the order of the prompts.

    Parameters
    ----------
    prompt
        int64 (M,), index of the prompt.
    predicted_iou, stability
        float64 (M,), in [0, 1].
    boxes
        int64 (M, 4), ``(x0, y0, x1, y1)`` in frame pixels, half open, tight.
    data
        M boolean arrays, cropped to their boxes.
    """

    prompt: NDArray[np.int64]
    predicted_iou: NDArray[np.float64]
    stability: NDArray[np.float64]
    boxes: NDArray[np.int64]
    data: list[NDArray[np.bool_]]


class Tile(NamedTuple):
    """What SAM 2's encoder makes of one window of a frame.

    Parameters
    ----------
    features
        float32 (3 C, s, s), s a quarter of the model's input: the encoder's fine, middle and coarse levels, the latter
        two interpolated bilinearly.
    embedding
        For prompts in this window.
    """

    features: NDArray[np.float32]
    embedding: Embedding


def joined(parts: Sequence[PromptedMasks]) -> PromptedMasks:
    """Return the masks of all parts."""
    return PromptedMasks(
        np.concatenate([np.zeros(0, np.int64), *(part.prompt for part in parts)]),
        np.concatenate([np.zeros(0), *(part.predicted_iou for part in parts)]),
        np.concatenate([np.zeros(0), *(part.stability for part in parts)]),
        np.concatenate([np.zeros((0, 4), np.int64), *(part.boxes for part in parts)]),
        [crop for part in parts for crop in part.data],
    )
