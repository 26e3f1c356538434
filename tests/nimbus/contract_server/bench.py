"""Planes with discs on them, and a way to run a job on a contract server with a segmenter that needs no torch."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bright import BrightMethod, BrightSegmenter
from sam2_fewshot.nimbus.job import Means, compute
from sam2_fewshot.nimbus.server import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from contract_server.web import ContractServer
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.records import Exemplar
    from sam2_fewshot.settings import Settings

QUICK = Patience(first=0.01, longest=0.05, total=0.3, connect=2.0, read=5.0, gateway=0.1)
DISCS = [(14, 14), (14, 48), (46, 16), (48, 48)]
CACHED = "These examples were learned before; what was learned is taken from the cache."


def discs(shift: int = 0, size: int = 64, dtype: str = "uint16") -> NDArray[Any]:
    """A plane with four bright discs of radius 7 on a dark ground."""
    rows, columns = np.mgrid[:size, :size]
    plane = np.full((size, size), 100, dtype)
    for row, column in DISCS:
        plane[(rows - row) ** 2 + (columns - column - shift) ** 2 <= 49] = 200
    return plane


def squares(count: int, per_row: int, side: int = 2) -> NDArray[Any]:
    """A plane with a lattice of bright squares, and some empty ground below."""
    step = side + 1
    plane = np.full(((count // per_row + 2) * step, per_row * step), 100, "uint16")
    for number in range(count):
        row, column = divmod(number, per_row)
        plane[row * step : row * step + side, column * step : column * step + side] = 200
    return plane


def ring(row: int, column: int, radius: float = 7.0) -> list[dict[str, float]]:
    """An outline of a disc whose centre is the centre of a pixel, as the app stores it."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return [{"x": column + 0.5 + radius * np.cos(a), "y": row + 0.5 + radius * np.sin(a)} for a in angles]


def until(what: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def bright(**others: Any) -> BrightMethod:
    """What these jobs search with: everything bright, with three figures that differ, one of them unknown."""
    return BrightMethod(**{"score": 0.9, "similarity": 0.8, "predicted_iou": float("nan"), **others})


class Segmenter(BrightSegmenter):
    """Remembers the examples that it was given."""

    exemplars: Sequence[Exemplar] = ()

    def fit(self, exemplars: Sequence[Exemplar]) -> Segmenter:
        self.exemplars = list(exemplars)
        super().fit(exemplars)
        return self


@dataclass
class Outcome:
    """How a job ended, and what the user has read."""

    code: int
    lines: list[str]
    segmenter: Segmenter | None

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

    @property
    def learned(self) -> bool:
        """Whether the job learned anew; if not, what an earlier one had learned was taken."""
        assert self.segmenter is not None
        assert self.segmenter.bright.learned + (CACHED in self.lines) == 1
        return self.segmenter.bright.learned == 1

    @property
    def exemplars(self) -> Sequence[Exemplar]:
        assert self.segmenter is not None
        return self.segmenter.exemplars


@dataclass
class Bench:
    """A server with one dataset, and jobs on it."""

    server: ContractServer
    dataset: str
    method: Callable[[], BrightMethod] = bright
    kind: Callable[[Settings, Progress, BrightMethod], Segmenter] = Segmenter
    form: dict[str, Any] = field(default_factory=lambda: {"Training Tag": ["cell"], "Batch XY": "all"})
    job: dict[str, Any] = field(default_factory=lambda: {"tags": ["found"], "channel": 0})
    means: Means = field(default_factory=lambda: Means(patience=QUICK, gpu_expected=lambda: False))

    def run(self, means: Means | None = None, **form: Any) -> Outcome:
        stream = io.StringIO()
        made: list[Segmenter] = []

        def make(model: str, device: str, settings: Settings, progress: Progress) -> Segmenter:
            made.append(self.kind(settings, progress, self.method()))
            return made[-1]

        raw = {**self.job, "workerInterface": {**self.form, **form}}
        chosen = replace(means or self.means, make=make, checkpoints=lambda: ["bright.pt"], stream=stream)
        code = compute(self.server.url, self.server.token, raw, self.dataset, chosen)
        lines = stream.getvalue().splitlines()
        assert self.server.token not in stream.getvalue()
        return Outcome(code, lines, made[-1] if made else None)

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
