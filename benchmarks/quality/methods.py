"""The methods that are compared, behind one small seam.

A method is written ``name`` or ``name:setting=value,...``. ``floor``, ``oracle`` and ``oracle_zoom`` are ours; every
other name is a value of ``Settings.method`` and runs through :class:`~sam2_fewshot.FewShotSegmenter` with the
settings changed by the values. ``negatives=N`` is no setting: so many objects of other classes are shown as negative
examples. ``all.setting=value`` holds only for the run that keeps every candidate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import yaml
from benchmarks.quality.figures import Prediction
from benchmarks.quality.floor import OtsuFloor
from benchmarks.quality.oracle import click

from sam2_fewshot import FewShotSegmenter, Settings
from sam2_fewshot.errors import SettingsError
from sam2_fewshot.rendering.channels import as_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.quality.tasks import Episode, Query

    from sam2_fewshot.backbones.sam2.network import Sam2Model
    from sam2_fewshot.records import Detection, InstanceMask

EVERYTHING: Mapping[str, Any] = {"similarity_threshold": 0.0}
"""With these settings no candidate is dropped for its score. (A cosine below 0 still is, and so is a candidate of
`grid` that is nearer to the negatives.)"""

DEFAULT = ("guided", "grid", "floor", "oracle", "oracle_zoom")


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """What a method gives on one frame.

    Parameters
    ----------
    kept
        The predictions at the method's default threshold.
    everything
        All candidates, with their scores.
    seconds
        Of each stage.
    proposed
        All masks that were proposed, before any was compared with the examples or with another; None where that is
        `everything`.
    """

    kept: list[Prediction]
    everything: list[Prediction]
    seconds: dict[str, float]
    proposed: list[InstanceMask] | None = None


class Method(Protocol):
    """Learns from examples, then finds objects in frames."""

    label: str
    negatives: int
    scored: bool
    agreement: float | None

    def learn(self, episode: Episode) -> None:
        """Take the examples of an episode; what was learned before is forgotten."""
        ...

    def find(self, query: Query) -> Outcome:
        """Look in one frame."""
        ...


@dataclass
class Told:
    """A listener to the segmenter that keeps each warning once."""

    warnings: dict[str, None] = field(default_factory=dict)

    def start(self, stage: str, total: int | None = None) -> None:
        """Do nothing."""

    def advance(self, steps: int = 1) -> None:
        """Do nothing."""

    def warn(self, sentence: str) -> None:
        """Keep the sentence."""
        self.warnings[sentence] = None


class FewShot:
    """Any method of the package, by its settings.

    Parameters
    ----------
    model
        Shared by all.
    label
        What to call it in the table.
    settings
        At which it is evaluated.
    everything
        At which it gives all candidates; None where the predictions at `settings` are just those of all candidates
        whose score is at least ``similarity_threshold``, so that one run serves both.
    negatives
        Most negative examples to show.
    told
        Who hears the warnings.
    """

    scored = True
    agreement: float | None = None

    def __init__(
        self,
        model: Sam2Model,
        label: str,
        settings: Settings,
        everything: Settings | None,
        negatives: int = 0,
        told: Told | None = None,
    ) -> None:
        self.label, self.negatives = label, negatives
        self._model, self._settings, self._everything = model, settings, everything
        self._told = told or Told()
        self._learned: list[FewShotSegmenter] = []

    def learn(self, episode: Episode) -> None:
        """Fit a segmenter for each of the settings."""
        examples = [*episode.examples, *episode.negatives[: self.negatives]]
        self._learned = []
        for settings in self._runs():
            segmenter = FewShotSegmenter(self._model, settings=settings, progress=self._told)
            self._learned.append(segmenter.fit(examples))
        measured = self._learned[0].object_model.learned.get("agreement")
        self.agreement = None if measured is None else float(measured[0])

    def find(self, query: Query) -> Outcome:
        """Segment the frame; the seconds are those of the run that is evaluated."""
        results = [segmenter.predict(query.picture.image, keep_proposed=True) for segmenter in self._learned]
        everything = list(results[-1].detections)
        if self._everything is None:
            kept = [d for d in everything if d.score >= self._settings.similarity_threshold]
        else:
            kept = list(results[0].detections)
        proposed = results[-1].proposed
        return Outcome(_predictions(kept), _predictions(everything), dict(results[0].seconds), list(proposed or ()))

    def _runs(self) -> list[Settings]:
        if self._everything is None:
            return [self._settings.changed(EVERYTHING)]
        return [self._settings, self._everything]


class Floor:
    """Otsu's threshold, polarity and size range from the examples."""

    scored = False
    negatives = 0
    agreement = None

    def __init__(self, label: str) -> None:
        self.label = label
        self._floor: OtsuFloor | None = None

    def learn(self, episode: Episode) -> None:
        """Measure the examples."""
        self._floor = OtsuFloor(episode.examples)

    def find(self, query: Query) -> Outcome:
        """Threshold the frame."""
        if self._floor is None:
            raise RuntimeError("learn comes before find")
        start = time.perf_counter()
        predictions = [Prediction(mask, None) for mask in self._floor.find(query.picture.image)]
        return Outcome(predictions, predictions, {"threshold": time.perf_counter() - start})


class Oracle:
    """A click on every true object; no examples are needed."""

    scored = False
    negatives = 0
    agreement = None

    def __init__(self, model: Sam2Model, label: str, *, zoom: bool) -> None:
        self.label = label
        self._model, self._zoom = model, zoom
        # The same frame and objects come again with every k and seed.
        self._known: dict[tuple[int, ...], tuple[Query, Outcome]] = {}

    def learn(self, episode: Episode) -> None:
        """Nothing to learn."""

    def find(self, query: Query) -> Outcome:
        """Click, or return what the same clicks gave before."""
        key = (id(query.picture), *map(id, query.truth))
        if key not in self._known:
            start = time.perf_counter()
            pixels = as_reader(query.picture.image, Settings()).read()
            masks = click(self._model, pixels, query.truth, zoom=self._zoom)
            predictions = [Prediction(mask, None) for mask in masks]
            # The query is kept too, so that no other object can get the ids.
            self._known[key] = query, Outcome(predictions, predictions, {"click": time.perf_counter() - start})
        return self._known[key][1]


def make_method(spec: str, model: Sam2Model, points: int, told: Told) -> Method:
    """Return the method that a text on the command line names.

    Parameters
    ----------
    spec
        ``name`` or ``name:setting=value,...``.
    model
        Shared by all methods.
    points
        ``points_per_side`` of `grid`, unless the text says otherwise.
    told
        Who hears the warnings.

    Raises
    ------
    SettingsError
        If there is no such method or setting, or a value is out of its range.
    """
    name, values = _read(spec)
    maker = METHODS.get(name, _few_shot)
    return maker(name, spec, values, model, points, told)


def _few_shot(name: str, spec: str, values: dict[str, Any], model: Sam2Model, points: int, told: Told) -> Method:
    for_all = {key.removeprefix("all."): values.pop(key) for key in list(values) if key.startswith("all.")}
    negatives = values.pop("negatives", 0)
    if not isinstance(negatives, int) or negatives < 0:
        raise SettingsError(f"In {spec!r} negatives is {negatives!r}, but it must be a whole number of at least 0.")
    settings = Settings(method=name, **values)
    # A fixed threshold is the last step, so all candidates tell what it keeps.
    one_run = settings.threshold_mode == "fixed" and not for_all
    everything = None if one_run else settings.changed({**EVERYTHING, **for_all})
    return FewShot(model, spec, settings, everything, negatives, told)


def _grid(name: str, spec: str, values: dict[str, Any], model: Sam2Model, points: int, told: Told) -> Method:
    return _few_shot(name, spec, {"points_per_side": points, **values}, model, points, told)


def _floor(name: str, spec: str, values: dict[str, Any], model: Sam2Model, points: int, told: Told) -> Method:
    _no_settings(name, values)
    return Floor(spec)


def _oracle(name: str, spec: str, values: dict[str, Any], model: Sam2Model, points: int, told: Told) -> Method:
    _no_settings(name, values)
    return Oracle(model, spec, zoom=name == "oracle_zoom")


METHODS: dict[str, Callable[[str, str, dict[str, Any], Sam2Model, int, Told], Method]] = {
    "grid": _grid,
    "floor": _floor,
    "oracle": _oracle,
    "oracle_zoom": _oracle,
}
"""The methods that need more than their settings; all others are made alike."""


def _read(spec: str) -> tuple[str, dict[str, Any]]:
    """Split ``name:setting=value,...``; values are read as YAML, as in a settings file."""
    name, _, rest = spec.partition(":")
    values = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise SettingsError(f"In {spec!r}, {part!r} is not of the form setting=value.")
        values[key.strip()] = yaml.safe_load(value)
    return name, values


def _no_settings(name: str, values: dict[str, Any]) -> None:
    if values:
        raise SettingsError(f"The method {name} has no settings, but {', '.join(values)} was given.")


def _predictions(detections: list[Detection]) -> list[Prediction]:
    return [Prediction(detection.instance, detection.score) for detection in detections]
