"""Outlines of made-up objects as distance-like fields: positive inside, zero on the edge, in units of the radius."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

KINDS = ("ellipse", "rod", "blob", "star", "polygon", "bud", "crescent", "worm", "square")


@dataclass
class Shape:
    """The outline of one class of objects; single objects vary a little around it.

    Attributes
    ----------
    kind
        One of `KINDS`.
    aspect
        Width over length.
    wave
        Strength of lobes, bends or waves.
    count
        Number of lobes, corners or waves.
    hole
        Width of the rim as a share of the radius if the object is a true ring (its hole is background), else 0.
    coefficients
        Radial harmonics of kind ``blob``.
    """

    kind: str = "ellipse"
    aspect: float = 0.8
    wave: float = 0.3
    count: int = 5
    hole: float = 0.0
    coefficients: list[tuple[float, float]] = field(default_factory=list)

    @staticmethod
    def random(rng: np.random.Generator, kinds: tuple[str, ...] = KINDS) -> Shape:
        """Draw a shape.

        Parameters
        ----------
        rng
            Source of randomness.
        kinds
            The kinds to choose from.

        Returns
        -------
        Shape
            The outline of a new class.
        """
        kind = kinds[int(rng.integers(len(kinds)))]
        narrow = {"rod": (0.12, 0.4), "worm": (0.03, 0.16), "crescent": (0.35, 0.8)}.get(kind, (0.55, 1.0))
        return Shape(
            kind=kind,
            aspect=float(rng.uniform(*narrow)),
            wave=float(rng.uniform(0.1, 0.4)),
            count=int(rng.integers(3, 8)),
            hole=float(rng.uniform(0.25, 0.5)) if rng.random() < 0.06 and kind != "worm" else 0.0,
            coefficients=[(float(rng.normal(0, 0.2 / k)), float(rng.uniform(0, 6.3))) for k in range(2, 6)],
        )

    def evaluate(self, u: Array, v: Array, rng: np.random.Generator) -> Array:
        """Evaluate the field of one object.

        Parameters
        ----------
        u, v
            Coordinates in the object's own frame, in units of its radius.
        rng
            Source of the variation between objects of the class.

        Returns
        -------
        Array
            Positive inside, about the distance to the edge in units of the radius.
        """
        aspect = self.aspect * float(rng.uniform(0.88, 1.12))
        inside = getattr(self, f"_{self.kind}")(u, v, min(aspect, 1.1), rng)
        return np.minimum(inside, self.hole - inside) if self.hole else inside

    def _ellipse(self, u: Array, v: Array, aspect: float, _rng: np.random.Generator) -> Array:
        return (1 - np.sqrt(u * u + (v / aspect) ** 2)) * aspect

    def _rod(self, u: Array, v: Array, aspect: float, rng: np.random.Generator) -> Array:
        bent = v - float(rng.normal(0, 0.6)) * self.wave * (u * u - 0.3)
        return aspect - np.hypot(np.maximum(np.abs(u) - (1 - aspect), 0), bent)

    def _blob(self, u: Array, v: Array, aspect: float, rng: np.random.Generator) -> Array:
        v = v / aspect
        angle = np.arctan2(v, u)
        radius: Any = 0.9
        for k, (strength, phase) in enumerate(self.coefficients, start=2):
            jitter = float(rng.normal(0, 0.05))
            radius = radius + (strength + jitter) * np.cos(k * angle + phase + float(rng.normal(0, 0.5)))
        return np.clip(radius, 0.35, 1.5) - np.hypot(u, v)

    def _star(self, u: Array, v: Array, aspect: float, _rng: np.random.Generator) -> Array:
        v = v / aspect
        return 0.85 + self.wave * np.cos(self.count * np.arctan2(v, u)) - np.hypot(u, v)

    def _polygon(self, u: Array, v: Array, aspect: float, _rng: np.random.Generator) -> Array:
        v = v / aspect
        corners = max(3, self.count)
        turns = np.arange(corners) * (2 * np.pi / corners)
        edge = np.cos(np.pi / corners)
        inside = np.full(u.shape, np.inf, np.float32)
        for turn in turns:
            inside = np.minimum(inside, edge - (np.cos(turn) * u + np.sin(turn) * v))
        return inside

    def _square(self, u: Array, v: Array, aspect: float, _rng: np.random.Generator) -> Array:
        corner = 0.25
        x, y = np.abs(u) - (0.85 - corner), np.abs(v) - (0.85 * aspect - corner)
        return corner - np.hypot(np.maximum(x, 0), np.maximum(y, 0)) - np.minimum(np.maximum(x, y), 0)

    def _bud(self, u: Array, v: Array, aspect: float, rng: np.random.Generator) -> Array:
        mother = 0.68 - np.hypot(u + 0.3, v / max(aspect, 0.8))
        size = float(rng.uniform(0.15, 0.45)) if rng.random() < 0.7 else 0.0
        return np.maximum(mother, size - np.hypot(u - 0.32 - size * 0.75, v)) if size else mother

    def _crescent(self, u: Array, v: Array, aspect: float, _rng: np.random.Generator) -> Array:
        return np.minimum(0.95 - np.hypot(u, v), np.hypot(u - aspect, v) - 0.85)

    def _worm(self, u: Array, v: Array, aspect: float, rng: np.random.Generator) -> Array:
        speed = self.count * 0.7 * float(rng.uniform(0.7, 1.3))
        swing = self.wave * float(rng.uniform(0.3, 1.2))
        angle = speed * u + float(rng.uniform(0, 6.3))
        slope = np.sqrt(1 + (swing * speed * np.cos(angle)) ** 2)
        across = np.abs(v - swing * np.sin(angle)) / slope
        return aspect - np.hypot(across, np.maximum(np.abs(u) - (1 - aspect), 0))
