"""What made-up objects look like: the appearance of a class, and how a look-alike differs from it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.shapes import KINDS, Shape

Array = NDArray[np.float32]
TRAITS = ("shape", "size", "texture", "intensity", "colour", "rim", "core")


@dataclass
class Look:
    """One class of objects.

    Attributes
    ----------
    shape
        The outline.
    radius
        Mean radius in pixels.
    spread
        Relative spread of the radius.
    colour
        Change of the three channels against the background, -1 to 1.
    dome
        0: flat, 1: bright in the middle only.
    rim, rim_colour, rim_width
        Strength, colour and width (pixels) of a membrane.
    texture, texture_index
        Strength of the texture, and which of the scene's textures.
    stripes
        Number of stripes across the object (0: none).
    core, core_colour
        Size of a nucleus as a share of the radius (0: none), and its colour.
    specks
        Number of small spots inside.
    halo
        Strength of an unlabelled glow or phase halo outside.
    opacity
        1: covers the background; 0: adds to it.
    """

    shape: Shape
    radius: float
    colour: Array
    spread: float = 0.15
    dome: float = 0.0
    rim: float = 0.0
    rim_colour: Array = field(default_factory=lambda: np.zeros(3, np.float32))
    rim_width: float = 2.0
    texture: float = 0.0
    texture_index: int = 0
    stripes: float = 0.0
    core: float = 0.0
    core_colour: Array = field(default_factory=lambda: np.zeros(3, np.float32))
    specks: int = 0
    halo: float = 0.0
    opacity: float = 0.8


def random_colour(rng: np.random.Generator, grey: bool, low: float = 0.12, high: float = 0.8) -> Array:
    """Draw a change of colour that is at least `low` strong.

    Parameters
    ----------
    rng
        Source of randomness.
    grey
        Whether the three channels change alike.
    low, high
        Smallest and largest strength.

    Returns
    -------
    Array
        Three numbers between -1 and 1.
    """
    strength = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    sign = 1.0 if rng.random() < 0.5 else -1.0
    mix = np.ones(3) if grey else rng.uniform(-0.4, 1.0, 3)
    mix = mix / max(0.3, float(np.abs(mix).max()))
    return (sign * strength * mix).astype(np.float32)


def random_look(
    rng: np.random.Generator,
    radius: float,
    grey: bool,
    kinds: tuple[str, ...] = KINDS,
    low: float = 0.12,
) -> Look:
    """Draw a class of objects.

    Parameters
    ----------
    rng
        Source of randomness.
    radius
        Mean radius in pixels.
    grey
        Whether the scene has no colour.
    kinds
        Outlines to choose from.
    low
        Smallest contrast.

    Returns
    -------
    Look
        The class.
    """
    colour = random_colour(rng, grey, low)
    look = Look(
        shape=Shape.random(rng, kinds),
        radius=radius,
        colour=colour,
        spread=float(rng.uniform(0.03, 0.35)),
        dome=float(rng.uniform(0, 1)) if rng.random() < 0.4 else 0.0,
        opacity=float(rng.uniform(0.0, 1.0)),
    )
    if rng.random() < 0.35:
        set_rim(rng, look, grey)
    if rng.random() < 0.45:
        look.texture, look.texture_index = float(rng.uniform(0.1, 0.9)), int(rng.integers(3))
    if rng.random() < 0.12:
        look.stripes = float(rng.uniform(2, 7))
    if rng.random() < 0.22:
        set_core(rng, look, grey)
    if rng.random() < 0.2:
        look.specks = int(rng.integers(1, 9))
    if rng.random() < 0.2:
        look.halo = float(rng.uniform(-0.6, 0.6))
    return look


def set_rim(rng: np.random.Generator, look: Look, grey: bool) -> None:
    """Give a class a membrane; sometimes the membrane is all that shows.

    Parameters
    ----------
    rng
        Source of randomness.
    look
        The class to change.
    grey
        Whether the scene has no colour.
    """
    look.rim = float(rng.uniform(0.4, 1.0))
    look.rim_colour = random_colour(rng, grey, 0.25, 0.9)
    look.rim_width = float(np.clip(look.radius * rng.uniform(0.06, 0.3), 1.0, 9.0))
    if rng.random() < 0.4:
        look.colour = (look.colour * rng.uniform(0.0, 0.3)).astype(np.float32)


def set_core(rng: np.random.Generator, look: Look, grey: bool) -> None:
    """Give a class a nucleus.

    Parameters
    ----------
    rng
        Source of randomness.
    look
        The class to change.
    grey
        Whether the scene has no colour.
    """
    look.core = float(rng.uniform(0.2, 0.65))
    look.core_colour = random_colour(rng, grey, 0.25, 0.9)


def look_alike(rng: np.random.Generator, look: Look, grey: bool) -> Look:
    """Copy a class and change one trait only, so that telling them apart needs just that trait.

    Parameters
    ----------
    rng
        Source of randomness.
    look
        The class to copy.
    grey
        Whether the scene has no colour.

    Returns
    -------
    Look
        A class that differs in shape, size, texture, intensity, colour, rim or core.
    """
    other = copy.deepcopy(look)
    trait = TRAITS[int(rng.integers(len(TRAITS)))]
    if trait == "shape":
        others = tuple(kind for kind in KINDS if kind != look.shape.kind and kind != "worm")
        other.shape = Shape.random(rng, others)
    elif trait == "size":
        other.radius = look.radius * float(rng.uniform(1.5, 2.2))
        look.spread = other.spread = min(look.spread, 0.12)
    elif trait == "texture":
        other.texture = 0.0 if look.texture > 0.3 else float(rng.uniform(0.5, 1.0))
        other.texture_index = int(rng.integers(3))
        other.stripes = 0.0 if look.stripes else other.stripes
    elif trait == "intensity":
        other.colour = (look.colour * (rng.uniform(0.35, 0.6) if rng.random() < 0.7 else -1.0)).astype(np.float32)
    elif trait == "colour" and not grey:
        other.colour = np.roll(look.colour, int(rng.integers(1, 3)))
    elif trait == "rim":
        other.rim = 0.0
        if not look.rim:
            set_rim(rng, other, grey)
    else:
        other.core = 0.0
        if not look.core:
            set_core(rng, other, grey)
    return other


def paint(look: Look, inside: Array, u: Array, under: Array, texture: Array, rng: np.random.Generator) -> Array:
    """Paint one object over its patch of the picture, before its soft edge is applied.

    Parameters
    ----------
    look
        The class.
    inside
        Distance to the edge in pixels, positive inside.
    u
        Coordinate along the object, in units of its radius.
    under
        (height, width, 3) the picture so far.
    texture
        (height, width) the texture at this place, about -1 to 1.
    rng
        Source of the variation between objects.

    Returns
    -------
    Array
        (height, width, 3) the colours inside the object.
    """
    depth = np.clip(inside / max(1.0, float(inside.max())), 0, 1)
    strength = np.full(inside.shape, float(rng.uniform(0.85, 1.12)), np.float32)
    if look.dome:
        strength *= 1 - look.dome + look.dome * 1.3 * np.sqrt(depth)
    if look.texture:
        strength *= 1 + look.texture * texture
    if look.stripes:
        strength *= 1 + 0.6 * np.sin(look.stripes * np.pi * u + float(rng.uniform(0, 6.3)))
    base = under.mean(axis=(0, 1), keepdims=True) * look.opacity + under * (1 - look.opacity)
    out = base + strength[..., None] * look.colour
    if look.core:
        radius = max(1.0, look.core * look.radius * float(rng.uniform(0.85, 1.15)))
        core = np.clip((inside - (float(inside.max()) - radius)) / 1.5 + 0.5, 0, 1) * (1 + 0.3 * texture)
        out += core[..., None] * look.core_colour
    if look.specks:
        rows, columns = np.nonzero(inside > 1.5)
        if rows.size:
            chosen = rng.integers(0, rows.size, look.specks)
            size = max(1, round(look.radius * 0.09))
            for row, column in zip(rows[chosen], columns[chosen], strict=True):
                out[max(0, row - size) : row + size, max(0, column - size) : column + size] -= 0.7 * look.colour
    if look.rim:
        edge = np.exp(-0.5 * ((inside - look.rim_width * 0.6) / (look.rim_width * 0.6)) ** 2)
        out += (look.rim * edge)[..., None] * look.rim_colour
    return out
