"""Engines that are free of torch, planes with discs on them, and a way to run a job on a contract server."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sam2_fewshot.errors import InputError
from sam2_fewshot.evaluation import label_image_to_instances
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.nimbus.job import Means, compute
from sam2_fewshot.nimbus.server import Patience
from sam2_fewshot.records import Detection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from contract_server.web import ContractServer
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Exemplar, FrameReader

QUICK = Patience(first=0.01, longest=0.05, total=0.3, connect=2.0, read=5.0)
DISCS = [(14, 14), (14, 48), (46, 16), (48, 48)]


def discs(shift: int = 0, size: int = 64, dtype: str = "uint16") -> NDArray[Any]:
    """A plane with four bright discs of radius 7 on a dark ground."""
    rows, columns = np.mgrid[:size, :size]
    plane = np.full((size, size), 100, dtype)
    for row, column in DISCS:
        plane[(rows - row) ** 2 + (columns - column - shift) ** 2 <= 49] = 200
    return plane


def ring(row: int, column: int, radius: float = 7.0) -> list[dict[str, float]]:
    """An outline of a disc whose centre is the centre of a pixel, as the app stores it."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return [{"x": column + 0.5 + radius * np.cos(a), "y": row + 0.5 + radius * np.sin(a)} for a in angles]


class Bright:
    """An engine that finds connected bright pixels: a real alternative, quick and free of torch."""

    model_sha256 = "0" * 64
    described = "bright.pt on nothing"
    slow = False
    candidates = 0
    cut = ""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress
        self.exemplars: list[Exemplar] = []
        self.fitted = self.loaded = 0
        self.frames: list[str] = []

    def fit(self, exemplars: Sequence[Exemplar]) -> None:
        self.exemplars = list(exemplars)
        self.fitted += 1

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, learned=np.array(len(self.exemplars)))

    def load(self, path: Path) -> None:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                assert archive["learned"] > 0
        except (OSError, ValueError) as error:
            raise InputError("damaged") from error
        self.loaded += 1

    def segment(self, image: FrameReader) -> list[Detection]:
        from skimage.measure import label

        self.frames.append(image.name)
        found = label_image_to_instances(label(image.read().max(axis=2) > 127))
        self.candidates = len(found) + 1
        return [Detection(item, mask_to_polygon(item), 0.9, 0.8, float("nan"), image.location) for item in found]


@dataclass
class Outcome:
    """How a job ended, and what the user has read."""

    code: int
    lines: list[str]
    engine: Bright

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def texts(self, kind: str) -> list[str]:
        return [message[kind] for message in self.messages if kind in message]

    @property
    def error(self) -> str:
        """The last message, which must be an error."""
        assert self.lines[-1].startswith("{"), self.lines
        return str(self.messages[-1]["error"])


@dataclass
class Bench:
    """A server with one dataset, and jobs on it."""

    server: ContractServer
    dataset: str
    engine: Callable[[Progress], Any] = Bright
    form: dict[str, Any] = field(default_factory=lambda: {"Training Tag": ["cell"], "Batch XY": "all"})
    job: dict[str, Any] = field(default_factory=lambda: {"tags": ["found"], "channel": 0})
    means: Means = field(default_factory=lambda: Means(patience=QUICK))

    def run(self, means: Means | None = None, **form: Any) -> Outcome:
        stream = io.StringIO()
        engines: list[Any] = []

        def make(request: object, progress: Progress) -> Any:
            engines.append(self.engine(progress))
            return engines[-1]

        raw = {**self.job, "workerInterface": {**self.form, **form}}
        chosen = replace(means or self.means, make_engine=make, checkpoints=lambda: ["bright.pt"], stream=stream)
        code = compute(self.server.url, self.server.token, raw, self.dataset, chosen)
        lines = stream.getvalue().splitlines()
        assert self.server.token not in stream.getvalue()
        return Outcome(code, lines, engines[-1] if engines else Bright())

    def found(self, tag: str = "found") -> list[dict[str, Any]]:
        return [each for each in self.server.store.annotations.values() if tag in each["tags"]]

    def values(self) -> dict[str, dict[str, Any]]:
        """The figures by annotation, read as the app reads them: through the collection's property."""
        store = self.server.store
        (key,) = next(iter(store.collections.values()))["meta"]["propertyIds"]
        assert len({value["annotationId"] for value in store.values}) == len(store.values)
        return {value["annotationId"]: value["values"][key] for value in store.values}


def white_layer(**changes: Any) -> dict[str, Any]:
    contrast = {"mode": "absolute", "blackPoint": 100, "whitePoint": 200}
    return {"id": "layer-1", "name": "white", "channel": 0, "color": "#FFFFFF", "contrast": contrast, **changes}
