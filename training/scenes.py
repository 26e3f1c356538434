"""Made-up microscopy scenes: a seed in, a picture with instance masks and classes out.

Variety is what these scenes are for: no single scene needs to look real, but every kind of object that a user may mark
(tiny spots to huge flat areas, rods, rings, filaments, organelles, stained cells, dense packings) must occur somewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from training.families import FAMILIES, Plan, make_plan
from training.looks import Array, Look, paint, random_colour

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_OBJECTS = 380


@dataclass(frozen=True)
class Scene:
    """A picture with everything in it known.

    Attributes
    ----------
    image
        (size, size, 3) uint8.
    labels
        (size, size) int16; 0 is background, 1..n are objects.
    classes
        (n + 1,) int16, the class (from 1) of each object; entry 0 is 0.
    family
        Kind of scene, one of `training.families.FAMILIES`.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int16]
    classes: NDArray[np.int16]
    family: str


def noise(rng: np.random.Generator, size: int, scale: float) -> Array:
    """Smooth noise, about -1 to 1.

    Parameters
    ----------
    rng
        Source of randomness.
    size
        Side in pixels.
    scale
        Width of a bump in pixels.

    Returns
    -------
    Array
        (size, size) noise.
    """
    cells = max(2, int(size / scale) + 2)
    grid = torch.from_numpy(rng.normal(0, 0.6, (1, 1, cells, cells)).astype(np.float32))
    out: Array = F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=False)[0, 0].numpy()
    return out


@dataclass
class _Object:
    """One placed object: its class, its patch and the field over it (pixels)."""

    kind: int
    rows: slice
    columns: slice
    inside: Array
    u: Array
    mask: NDArray[np.bool_] | None = None


def _place(rng: np.random.Generator, look: Look, kind: int, centre: Array, size: int, reach: float) -> _Object | None:
    radius = max(2.0, look.radius * float(np.exp(rng.normal(0, look.spread))))
    span = radius * reach + 2
    lows = np.maximum(0, np.floor(centre - span)).astype(int)
    highs = np.minimum(size, np.ceil(centre + span)).astype(int)
    if (highs - lows < 3).any():
        return None
    y = (np.arange(lows[0], highs[0], dtype=np.float32) - centre[0])[:, None] / radius
    x = (np.arange(lows[1], highs[1], dtype=np.float32) - centre[1])[None] / radius
    turn = float(rng.uniform(0, 2 * np.pi))
    c, s = float(np.cos(turn)), float(np.sin(turn))
    u, v = (c * x + s * y).astype(np.float32), (c * y - s * x).astype(np.float32)
    inside = (look.shape.evaluate(u, v, rng) * radius).astype(np.float32)
    return _Object(kind, slice(lows[0], highs[0]), slice(lows[1], highs[1]), inside, u)


def _centres(rng: np.random.Generator, plan: Plan, count: int, size: int) -> Array:
    edge = 0.3 * plan.looks[0].radius
    if plan.layout == "clusters":
        hubs = rng.uniform(0, size, (int(rng.integers(1, 6)), 2))
        return (hubs[rng.integers(0, len(hubs), count)] + rng.normal(0, size * 0.1, (count, 2))).astype(np.float32)
    if plan.layout == "packing":
        step = size / np.sqrt(count)
        side = int(np.ceil(size / step))
        grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) + 0.5
        return (grid * step + rng.normal(0, step * rng.uniform(0.1, 0.4), grid.shape)).astype(np.float32)
    return rng.uniform(-edge, size + edge, (count, 2)).astype(np.float32)


def _arrange(rng: np.random.Generator, plan: Plan, size: int) -> tuple[list[_Object], NDArray[np.int16]]:
    """Place the objects and settle who owns which pixel."""
    labels = np.zeros((size, size), np.int16)
    best = np.full((size, size), -1e6 if plan.layout == "packing" else 0, np.float32)
    area = float(np.mean([np.pi * look.radius**2 * look.shape.aspect * 0.8 for look in plan.looks]))
    count = int(np.clip(plan.cover * size * size / area + 1, 1, MAX_OBJECTS))
    share = {"apart": 0.02, "clusters": 0.1, "touching": 0.4, "over": 0.4, "packing": 1.0}[plan.layout]
    weights = rng.dirichlet(np.full(len(plan.looks), 4.0))
    objects: list[_Object] = []
    for centre in _centres(rng, plan, count, size):
        kind = int(rng.choice(len(plan.looks), p=weights))
        reach = {"packing": 2.6}.get(plan.layout, 1.65 if plan.looks[kind].shape.kind == "blob" else 1.3)
        item = _place(rng, plan.looks[kind], kind, centre, size, reach)
        if item is None:
            continue
        here, field = labels[item.rows, item.columns], best[item.rows, item.columns]
        if plan.layout == "packing":
            mine = item.inside > field
        else:
            mine = item.inside > 0
            whole = int(mine.sum())
            if whole < 6 or float(((here > 0) & mine).sum()) > share * whole:
                continue
            if plan.layout == "touching":
                mine &= item.inside > field
        objects.append(item)
        here[mine] = len(objects)
        field[mine] = item.inside[mine]
        if len(objects) >= MAX_OBJECTS:
            break
    return objects, labels


def _edges(labels: NDArray[np.int16], width: float) -> NDArray[np.float32]:
    step = np.zeros(labels.shape, np.float32)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    step[:, 1:] += across
    step[1:] += down
    reach = 2 * max(1, round(width / 2)) + 1
    blurred = F.max_pool2d(torch.from_numpy(step)[None, None].clamp(max=1), reach, 1, reach // 2)
    return np.asarray(blurred[0, 0].numpy(), np.float32)


def scene(seed: int, size: int = 512, family: str | None = None) -> Scene:
    """Make a scene; the same seed gives the same scene.

    Parameters
    ----------
    seed
        Any whole number.
    size
        Side in pixels.
    family
        Kind of scene; drawn by the weights of `FAMILIES` if left out.

    Returns
    -------
    Scene
        Picture, masks and classes.
    """
    rng = np.random.default_rng(seed)
    drawn = str(rng.choice(list(FAMILIES), p=np.array(list(FAMILIES.values())) / sum(FAMILIES.values())))
    family = family or drawn
    plan = make_plan(family, rng, size)
    textures = [noise(rng, size, scale) for scale in (rng.uniform(1.5, 3), rng.uniform(3, 7), rng.uniform(7, 25))]
    image = np.empty((size, size, 3), np.float32)
    image[:] = plan.background
    image += (noise(rng, size, rng.uniform(60, 300)) * rng.uniform(0, 0.12))[..., None]
    if plan.clutter:
        image += (textures[int(rng.integers(3))] * plan.clutter)[..., None] * random_colour(rng, True, 0.5, 1.0)
    objects, labels = _arrange(rng, plan, size)
    for index, item in enumerate(objects, start=1):
        look = plan.looks[item.kind]
        patch, owner = image[item.rows, item.columns], labels[item.rows, item.columns]
        alpha = np.clip(item.inside + 0.5, 0, 1) if plan.layout != "packing" else np.ones_like(item.inside)
        alpha = alpha * ((owner == index) | ((owner == 0) & (item.inside > -1)))
        texture = textures[look.texture_index][item.rows, item.columns]
        if look.halo:
            glow = np.exp(np.minimum(item.inside, 0) / max(2.0, look.radius * 0.15)) * (owner == 0)
            patch += (look.halo * glow * (1 - alpha))[..., None] * np.abs(look.colour).max()
        patch += alpha[..., None] * (paint(look, item.inside, item.u, patch, texture, rng) - patch)
    if plan.membrane:
        edges = _edges(labels, plan.membrane)[..., None]
        image = image * (1 - edges) + edges * (plan.background + random_colour(rng, True, 0.2, 0.9))
        if rng.random() < 0.5:
            labels[edges[..., 0] > 0] = 0
    _debris(rng, image, plan.debris)
    return Scene(_to_uint8(rng, image), *_relabel(labels, objects), family)


def _debris(rng: np.random.Generator, image: Array, most: int) -> None:
    """Add small spots that no label covers."""
    size = image.shape[0]
    for _ in range(int(rng.integers(0, most + 1))):
        row, column = (int(value) for value in rng.integers(0, size, 2))
        reach = int(rng.integers(1, 4))
        image[row : row + reach, column : column + reach] += random_colour(rng, rng.random() < 0.7, 0.1, 0.8)


def _relabel(labels: NDArray[np.int16], objects: list[_Object]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Renumber the objects that are still visible from 1 on."""
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=len(objects) + 1)[1:] >= 6) + 1
    new = np.zeros(len(objects) + 1, np.int16)
    new[present] = np.arange(1, len(present) + 1)
    classes = np.array([0, *(objects[index - 1].kind + 1 for index in present)], np.int16)
    return new[labels], classes


def _to_uint8(rng: np.random.Generator, image: Array) -> NDArray[np.uint8]:
    """Use the range of the picture, as microscopes and viewers do, sometimes only a part of it."""
    thin = image[::4, ::4]
    low, high = (float(value) for value in np.percentile(thin, [0.3, 99.7]))
    if rng.random() < 0.5:
        low, high = min(low, 0.0), max(high, 1.0)
    return (np.clip((image - low) / max(0.05, high - low), 0, 1) * 255).astype(np.uint8)
