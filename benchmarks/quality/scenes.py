"""Generated look-alike scenes: classes of objects in one frame that differ in one respect only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Look:
    """How the objects of a class look.

    Parameters
    ----------
    name
        The class.
    shape
        ``round``, ``rod`` or ``square``, of the same area at the same radius.
    radius
        Of the disc of the same area, in pixels.
    brightness
        Of the object, in [0, 1]; the ground has about .25.
    speckle
        Standard deviation of the brightness inside.
    """

    name: str
    shape: str = "round"
    radius: float = 13.0
    brightness: float = 0.55
    speckle: float = 0.0


KINDS: dict[str, tuple[Look, ...]] = {
    "shape": (Look("round"), Look("rod", shape="rod"), Look("square", shape="square")),
    "size": (Look("small", radius=9.0), Look("large", radius=15.0)),
    "texture": (Look("smooth"), Look("speckled", speckle=0.16)),
    "intensity": (Look("dim", brightness=0.42), Look("middling", brightness=0.58), Look("bright", brightness=0.8)),
}
"""What the classes of a scene differ in, and the classes."""

_GROUND = 0.25
_OBJECTS = 54
_TRIES = 200


def scene(
    kind: str, seed: int, size: int = 512, objects: int = _OBJECTS
) -> tuple[NDArray[np.uint8], NDArray[np.uint16], dict[int, str]]:
    """Draw a frame of objects that nearly touch but never overlap, on an uneven, noisy ground.

    Parameters
    ----------
    kind
        What the classes differ in, a key of :data:`KINDS`.
    seed
        The same kind and seed give the same scene.
    size
        Side of the square frame in pixels.
    objects
        How many to place, the classes in turn; those that find no room are left out.

    Returns
    -------
    tuple
        The grey image (size, size), its labels, and the class of each label.
    """
    rng = np.random.default_rng([seed, crc32(kind.encode())])
    image = _GROUND + 0.04 * _unit(gaussian_filter(rng.normal(size=(size, size)), size / 8))
    labels = np.zeros((size, size), np.uint16)
    classes: dict[int, str] = {}
    for number in range(objects):
        look = KINDS[kind][number % len(KINDS[kind])]
        inside = _place(look, labels, rng)
        if inside is None:
            continue
        label = len(classes) + 1
        labels[inside] = label
        classes[label] = look.name
        image[inside] = look.brightness * rng.normal(1, 0.04)
        if look.speckle:
            # Grains of about a pixel and a half that leave the mean as it is.
            image[inside] += look.speckle * _unit(gaussian_filter(rng.normal(size=(size, size)), 1.5)[inside])
    image = gaussian_filter(image, 0.8) + rng.normal(0, 0.025, image.shape)
    return (255 * image.clip(0, 1)).astype(np.uint8), labels, classes


def _place(look: Look, labels: NDArray[np.uint16], rng: np.random.Generator) -> NDArray[np.bool_] | None:
    """Return the pixels of a new object that keeps two pixels from all others and from the border."""
    radius = look.radius * rng.uniform(0.9, 1.1)
    # Half the side of a window that holds every shape with its margin.
    half = math.ceil(2 * radius) + 2
    grid = np.arange(-half, half + 1) / radius
    for _ in range(_TRIES):
        angle = rng.uniform(0, np.pi)
        corner = rng.integers(0, labels.shape) - half
        x, y = grid[None, :], grid[:, None]
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        wide = corner + np.argwhere(_inside(look.shape, u, v, 2 / radius))
        if wide.min() < 0 or (wide >= labels.shape).any() or labels[tuple(wide.T)].any():
            continue
        out = np.zeros(labels.shape, bool)
        out[tuple((corner + np.argwhere(_inside(look.shape, u, v, 0.0))).T)] = True
        return out
    return None


def _inside(shape: str, u: NDArray[np.float64], v: NDArray[np.float64], margin: float) -> NDArray[np.bool_]:
    """Tell which points, in units of the radius, lie in a shape of area π widened by a margin."""
    out: NDArray[np.bool_]
    if shape == "square":
        out = np.maximum(abs(u), abs(v)) <= np.sqrt(np.pi) / 2 + margin
    elif shape == "rod":
        out = (u / (1.8 + margin)) ** 2 + (v / (1 / 1.8 + margin)) ** 2 <= 1
    else:
        out = u**2 + v**2 <= (1 + margin) ** 2
    return out


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values of mean 0 and standard deviation 1."""
    out: NDArray[np.float64] = (values - values.mean()) / max(float(values.std()), 1e-9)
    return out
