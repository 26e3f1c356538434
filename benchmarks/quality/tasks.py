"""What is looked for where: groups of like frames, a class in each, and which frames give the examples."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from benchmarks.quality.scenes import KINDS, scene
from PIL import Image
from scipy import ndimage

from sam2_fewshot.annotations.arrays import masks_of
from sam2_fewshot.records import Exemplar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sam2_fewshot.records import InstanceMask

POOL = 20
"""The example frames are the first that hold this many whole objects of the class: the largest k of the protocol.
It does not depend on the k of a run, so that all k are evaluated on the same queries."""

RANDOM, LARGEST, SALIENT = "random", "largest", "salient"
CHOICES = (RANDOM, LARGEST, SALIENT)
"""Ways of choosing examples."""

DEV, ONE_FRAME, FEWSHOT, LOOKALIKE = "dev", "one frame", "fewshot", "look-alike"
"""The families of tasks. In ONE_FRAME the examples lie in the query frame itself."""

_IGNORE = "ignore"
_ONLY_CLASS = "object"
# Masks derived from boxes, which no stricter or looser IoU can judge (the data's README).
_ROUGH_TRUTH = frozenset({"live_dead_cells"})
_HASHED_NAME = re.compile(r"(.+)_[0-9a-f]{8}")
_SCENES = 6


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame with its true objects.

    Parameters
    ----------
    name
        Unique in the run.
    image
        uint8 (H, W) or (H, W, 3).
    labels
        Integer (H, W), 0 is background.
    classes
        The class of each label.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.integer]
    classes: dict[int, str]

    @cached_property
    def objects(self) -> list[tuple[InstanceMask, str]]:
        """Each object's mask and class, in ascending order of the labels."""
        ids = np.unique(self.labels)
        names = [self.classes[int(i)] for i in ids[ids != 0]]
        return list(zip([*dict(masks_of(self.labels)).values()], names, strict=True))

    def of(self, wanted: str) -> list[InstanceMask]:
        """Return the objects of a class."""
        return [mask for mask, name in self.objects if name == wanted]


@dataclass(frozen=True, eq=False)
class Query:
    """A frame to look in.

    Parameters
    ----------
    picture
        The frame.
    truth
        What should be found.
    ignore
        What is not evaluated: objects left open by the annotator, and examples that lie on this frame.
    """

    picture: Picture
    truth: list[InstanceMask]
    ignore: list[InstanceMask]


@dataclass(frozen=True, eq=False)
class Episode:
    """One choice of examples for a task, and the queries that go with it."""

    examples: list[Exemplar]
    negatives: list[Exemplar]
    queries: list[Query]


@dataclass(frozen=True, eq=False)
class Task:
    """One class in one group of frames.

    Parameters
    ----------
    family
        :data:`DEV`, :data:`ONE_FRAME`, :data:`FEWSHOT` or :data:`LOOKALIKE`.
    group
        The dataset, with the type of image where it has several.
    wanted
        The class.
    example_frames, query_frames
        Disjoint, but for :data:`ONE_FRAME`.
    loose
        Whether an IoU of .3 makes sense; else .5 only.
    """

    family: str
    group: str
    wanted: str
    example_frames: tuple[Picture, ...]
    query_frames: tuple[Picture, ...]
    loose: bool = True

    @property
    def name(self) -> str:
        """``group:class``."""
        return f"{self.group}:{self.wanted}"

    def episode(self, k: int, seed: int, negatives: int = 0, choice: str = RANDOM) -> Episode | None:
        """Choose examples; None when there are too few for k of them.

        The k examples of a seed are the first k of its larger choices. Objects at the frame's border are
        not marked as long as there are enough others. The negatives are objects of other classes, as many as there
        are, up to the number wanted.

        Parameters
        ----------
        k, seed
            How many, and which of the random choices.
        negatives
            Most negative examples.
        choice
            :data:`RANDOM`, or as people choose: :data:`LARGEST`, the largest ones, or :data:`SALIENT`, those that stand
            out most from their surroundings and lie farthest from others. Negatives are always chosen at random.
        """
        rng = np.random.default_rng([seed, crc32(self.name.encode())])
        own = [(p, m) for p in self.example_frames for m, name in p.objects if name == self.wanted]
        other = [(p, m) for p in self.example_frames for m, name in p.objects if name not in (self.wanted, _IGNORE)]
        # With one frame at least as many objects must be left to be found.
        if len(own) < (2 * k if self.family == ONE_FRAME else k):
            return None
        shuffled = _shuffled(own, rng)
        chosen = (shuffled if choice == RANDOM else sorted(shuffled, key=_ORDERS[choice]))[:k]
        against = _shuffled(other, rng)[:negatives]
        shown = {id(mask) for _, mask in [*chosen, *against]}
        queries = []
        for picture in self.query_frames:
            truth = [m for m in picture.of(self.wanted) if id(m) not in shown]
            ignore = [m for m, name in picture.objects if name == _IGNORE or id(m) in shown]
            queries.append(Query(picture, truth, ignore))
        return Episode(_exemplars(chosen, negative=False), _exemplars(against, negative=True), queries)


def read_tasks(data: Path) -> list[Task]:
    """Return the tasks of a data folder, by group and class.

    Raises
    ------
    FileNotFoundError
        If the folder holds neither ``dev`` nor ``fewshot``.
    """
    folders = [(family, data / family) for family in (DEV, FEWSHOT) if (data / family).is_dir()]
    if not folders:
        raise FileNotFoundError(f"{data} holds neither dev/ nor fewshot/; give the folder that holds them.")
    tasks: list[Task] = []
    for family, folder in folders:
        for dataset in sorted(path for path in folder.iterdir() if path.is_dir()):
            groups: dict[str, list[Picture]] = {}
            for path in sorted(dataset.glob("*_labels.png")):
                name = path.name.removesuffix("_labels.png")
                hashed = _HASHED_NAME.fullmatch(name)
                group = f"{family}/{dataset.name}" + (f"/{hashed[1]}" if hashed else "")
                groups.setdefault(group, []).append(_read(dataset, name, group))
            for group, pictures in groups.items():
                tasks += make_tasks(family, group, pictures, loose=dataset.name not in _ROUGH_TRUTH)
    return tasks


def generated_tasks(kinds: Iterable[str] = KINDS, size: int = 512, scenes: int = _SCENES) -> list[Task]:
    """Return the tasks of the generated look-alike scenes of some kinds."""
    tasks: list[Task] = []
    for kind in kinds:
        group = f"{LOOKALIKE}/{kind}"
        pictures = [Picture(f"{group}/{i}", *scene(kind, i, size)) for i in range(scenes)]
        tasks += make_tasks(LOOKALIKE, group, pictures)
    return tasks


def make_tasks(family: str, group: str, pictures: Sequence[Picture], *, loose: bool = True) -> Iterator[Task]:
    """Yield a task for each class of a group of frames, in the order of their names.

    At most half of the frames give examples. A single frame gives both, and its family is :data:`ONE_FRAME`.
    """
    wanted = sorted({name for picture in pictures for _, name in picture.objects} - {_IGNORE})
    for name in wanted:
        if len(pictures) == 1:
            yield Task(ONE_FRAME, group, name, tuple(pictures), tuple(pictures), loose)
            continue
        first = 0
        while first < len(pictures) // 2 and (first == 0 or _whole(pictures[:first], name) < POOL):
            first += 1
        yield Task(family, group, name, tuple(pictures[:first]), tuple(pictures[first:]), loose)


def fewer_frames(task: Task, limit: int) -> Task:
    """Return the task with at most so many query frames, spread evenly; 0 keeps all."""
    frames = task.query_frames
    if not limit or len(frames) <= limit:
        return task
    kept = ((np.arange(limit) + 0.5) * len(frames) / limit).astype(int)
    return Task(task.family, task.group, task.wanted, task.example_frames, tuple(frames[i] for i in kept), task.loose)


def kinds_called(patterns: Sequence[str] | None) -> list[str]:
    """Return the kinds of generated scenes that have a task of such a name: drawing them all takes seconds."""
    return [
        kind
        for kind, looks in KINDS.items()
        if any(is_called(f"{LOOKALIKE}/{kind}:{look.name}", patterns) for look in looks)
    ]


def is_called(name: str, patterns: Sequence[str] | None) -> bool:
    """Tell whether a task's name, ``group:class``, holds one of the patterns or matches it with ``*`` and ``?``."""
    return not patterns or any(pattern in name or fnmatch(name, pattern) for pattern in patterns)


def quick_choice(tasks: Sequence[Task]) -> list[Task]:
    """Leave out all but the first class of each kind of look-alike scene."""
    groups = [task.group for task in tasks]
    return [t for i, t in enumerate(tasks) if t.family != LOOKALIKE or t.group not in groups[:i]]


def _by_area(item: tuple[Picture, InstanceMask]) -> tuple[bool, float]:
    return at_border(item[1]), -item[1].area


def _by_salience(item: tuple[Picture, InstanceMask]) -> tuple[bool, float]:
    """Contrast to a ring around it, in grey levels, times the distance from the nearest other object, in diameters."""
    picture, mask = item
    diameter = mask.area**0.5
    reach = int(2 * diameter) + 2
    x0, y0, x1, y1 = mask.box
    rows, columns = slice(max(0, y0 - reach), y1 + reach), slice(max(0, x0 - reach), x1 + reach)
    grey = picture.image[rows, columns].astype(np.float64)
    grey = grey if grey.ndim == 2 else grey.mean(axis=2)
    labels = picture.labels[rows, columns]
    own = labels == picture.labels[y0:y1, x0:x1][mask.data][0]
    away = ndimage.distance_transform_edt(~own)
    ring = (away > 1) & (away <= 0.25 * diameter + 2) & (labels == 0)
    contrast = abs(grey[own].mean() - grey[ring].mean()) if ring.any() else 0.0
    others = (labels != 0) & ~own
    distance = min(float(away[others].min()) if others.any() else np.inf, reach)
    return at_border(mask), -contrast * min(distance / diameter, 2.0)


_ORDERS: dict[str, Callable[[tuple[Picture, InstanceMask]], tuple[bool, float]]] = {
    LARGEST: _by_area,
    SALIENT: _by_salience,
}


def at_border(mask: InstanceMask) -> bool:
    """Tell whether an object touches the border of its frame."""
    x0, y0, x1, y1 = mask.box
    return x0 == 0 or y0 == 0 or x1 == mask.frame_shape[1] or y1 == mask.frame_shape[0]


def _whole(pictures: Iterable[Picture], wanted: str) -> int:
    return sum(not at_border(mask) for picture in pictures for mask in picture.of(wanted))


def _shuffled(
    objects: list[tuple[Picture, InstanceMask]], rng: np.random.Generator
) -> list[tuple[Picture, InstanceMask]]:
    """Return the objects in random order, those at the border last."""
    return sorted((objects[i] for i in rng.permutation(len(objects))), key=lambda item: at_border(item[1]))


def _exemplars(chosen: Sequence[tuple[Picture, InstanceMask]], *, negative: bool) -> list[Exemplar]:
    return [Exemplar(image=p.image, mask=m.full(), negative=negative, label=p.name) for p, m in chosen]


def _read(dataset: Path, name: str, group: str) -> Picture:
    with Image.open(dataset / f"{name}.png") as file:
        image = np.asarray(file if file.mode in ("L", "RGB") else file.convert("RGB"))
    with Image.open(dataset / f"{name}_labels.png") as file:
        labels = np.asarray(file).astype(np.int32)
    listed = dataset / f"{name}_classes.json"
    classes = json.loads(listed.read_text()) if listed.exists() else dict.fromkeys(np.unique(labels), _ONLY_CLASS)
    return Picture(f"{group}/{name}", image, labels, {int(label): kind for label, kind in classes.items()})
