"""The bundled sample: one real microscopy image, outlines of all its objects, and eight of them as examples.

Where it comes from, its licence and how the examples were chosen: ``SOURCE.md`` beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    return Sample(folder / "nuclei.png", folder / "nuclei_labels.png", folder / "nuclei_examples.png")
