"""The bundled sample: one real microscopy image, outlines of all its objects, and eight of them as examples.

Where it comes from, its licence and how the examples were chosen: ``SOURCE.md`` beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam2_fewshot.records import InstanceMask

N_EXAMPLES = 8


@dataclass(frozen=True)
class Sample:
    """Files of the sample.

    Parameters
    ----------
    image
        The image, 8-bit grey PNG.
    truth
        Label image of all objects, each with a value of its own; 0 is background.
    examples
        Label image of the examples alone, with the same values.
    """

    image: Path
    truth: Path
    examples: Path


def sample() -> Sample:
    """Return where the sample's files are."""
    folder = Path(__file__).parent
    return Sample(folder / "nuclei.png", folder / "nuclei_truth.png", folder / "nuclei_examples.png")


def spread_over_sizes(objects: Sequence[InstanceMask], count: int = N_EXAMPLES) -> list[int]:
    """Return the indices of objects that stand for all sizes, chosen by rule and not by hand.

    The objects are ranked by area and the ranks are split into `count` equal parts; the middle of each part is taken.
    """
    ranks = sorted(range(len(objects)), key=lambda index: (objects[index].area, index))
    return [ranks[int((part + 0.5) * len(ranks) / count)] for part in range(count)]
