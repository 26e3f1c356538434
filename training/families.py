"""Kinds of scenes: what the background is, which classes there are and how objects lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.looks import Array, Look, look_alike, random_look, set_core, set_rim

FAMILIES = {
    "any": 0.22,
    "fluorescence": 0.13,
    "spots": 0.07,
    "large": 0.15,
    "packing": 0.14,
    "organelles": 0.09,
    "stained": 0.08,
    "cytology": 0.06,
    "filaments": 0.06,
}


@dataclass
class Plan:
    """What a family decides: the background, the classes and how objects lie."""

    background: Array
    looks: list[Look]
    cover: float = 0.3
    layout: str = "apart"
    clutter: float = 0.0
    debris: int = 6
    membrane: float = 0.0


def _classes(rng: np.random.Generator, first: Look, grey: bool, alike: float = 0.65) -> list[Look]:
    looks = [first]
    for _ in range(int(rng.choice([0, 1, 2], p=[0.3, 0.45, 0.25]))):
        if rng.random() < alike:
            looks.append(look_alike(rng, first, grey))
        else:
            looks.append(random_look(rng, first.radius * float(rng.uniform(0.5, 1.6)), grey))
    return looks


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def make_plan(family: str, rng: np.random.Generator, size: int) -> Plan:
    """Decide what a scene shows.

    Parameters
    ----------
    family
        One of `FAMILIES`.
    rng
        Source of randomness.
    size
        Side of the scene in pixels.

    Returns
    -------
    Plan
        Background, classes and layout.
    """
    unit = size / 512
    grey = rng.random() < 0.6
    background = np.full(3, rng.uniform(0, 1), np.float32) if grey else rng.uniform(0, 1, 3).astype(np.float32)
    layout = str(rng.choice(["apart", "touching", "over", "clusters"], p=[0.35, 0.3, 0.2, 0.15]))
    cover = _log(rng, 0.05, 0.6)
    if family == "fluorescence":
        grey = True
        look = random_look(rng, unit * _log(rng, 5, 50), grey, ("ellipse", "blob", "bud", "crescent"))
        look.colour = np.abs(look.colour)
        background = np.full(3, rng.uniform(0, 0.25), np.float32)
        return Plan(background, _classes(rng, look, grey), cover, layout, rng.uniform(0, 0.08))
    if family == "spots":
        look = random_look(rng, unit * _log(rng, 2.5, 7), grey, ("ellipse", "rod", "polygon"), low=0.2)
        return Plan(background, _classes(rng, look, grey), _log(rng, 0.01, 0.2), "apart", rng.uniform(0, 0.1))
    if family == "large":
        # large, flat, faint objects: the ones whose masks used to break along attention windows
        look = random_look(rng, unit * _log(rng, 60, 190), grey, low=0.06)
        if rng.random() < 0.5:
            look.dome = look.texture = look.stripes = 0.0
        if look.shape.kind == "worm":
            look.shape.aspect = max(0.12, look.shape.aspect)
        looks = [look]
        if rng.random() < 0.6:
            looks.append(random_look(rng, look.radius * float(rng.uniform(0.15, 0.8)), grey, low=0.08))
        return Plan(background, looks, rng.uniform(0.25, 0.9), layout, rng.uniform(0, 0.15))
    if family == "packing":
        look = random_look(rng, unit * _log(rng, 9, 60), grey, ("ellipse", "blob"), low=0.05)
        looks = [look, *(look_alike(rng, look, grey) for _ in range(int(rng.integers(0, 3))))]
        return Plan(background, looks, 1.0, "packing", 0.0, 3, membrane=rng.uniform(1, 5) * (rng.random() < 0.8))
    if family == "organelles":
        background = np.full(3, rng.uniform(0.3, 0.85), np.float32)
        look = random_look(rng, unit * _log(rng, 9, 60), True, ("ellipse", "rod", "blob", "worm", "crescent"))
        set_rim(rng, look, True)
        look.rim_colour = -np.abs(look.rim_colour)
        if rng.random() < 0.5:
            look.stripes = float(rng.uniform(3, 9))
        look.texture = float(rng.uniform(0.2, 1.0))
        return Plan(background, _classes(rng, look, True), cover, layout, rng.uniform(0.08, 0.25), 12)
    if family == "stained":
        background = np.array([0.9, 0.72, 0.84], np.float32) + rng.normal(0, 0.06, 3).astype(np.float32)
        look = random_look(rng, unit * _log(rng, 6, 35), False, ("ellipse", "blob", "rod"))
        look.colour = np.array([-0.5, -0.55, -0.25], np.float32) * float(rng.uniform(0.5, 1.1))
        look.colour += rng.normal(0, 0.06, 3).astype(np.float32)
        look.texture = float(rng.uniform(0.1, 0.5))
        return Plan(background, _classes(rng, look, False), cover, layout, rng.uniform(0.06, 0.2), 10)
    if family == "cytology":
        background = rng.uniform(0.75, 1.0, 3).astype(np.float32)
        look = random_look(rng, unit * _log(rng, 25, 110), False, ("ellipse", "blob", "star", "polygon"), low=0.1)
        look.colour = -np.abs(look.colour)
        if rng.random() < 0.7:
            set_core(rng, look, False)
            look.core, look.core_colour = look.core * 0.7, -np.abs(look.core_colour)
        return Plan(background, _classes(rng, look, False), cover, layout, rng.uniform(0, 0.06))
    if family == "filaments":
        look = random_look(rng, unit * _log(rng, 20, 150), grey, ("worm", "rod"), low=0.2)
        look.shape.aspect = max(2.0 / look.radius, look.shape.aspect * 0.6)
        return Plan(background, _classes(rng, look, grey), _log(rng, 0.04, 0.3), "apart", rng.uniform(0, 0.1))
    look = random_look(rng, unit * _log(rng, 4, 90), grey)
    return Plan(background, _classes(rng, look, grey), cover, layout, rng.uniform(0, 0.2), int(rng.integers(0, 25)))
