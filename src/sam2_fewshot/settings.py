"""Every setting of the program, once.

The command line's options, the YAML file and the tables in the docs are generated from :class:`Settings`, so a
range or a help text is written here and nowhere else.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from sam2_fewshot.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.config import JsonDict
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails


_SELECTION = ("similarity_threshold", "threshold_mode", "top_percent", "sizes", "size_prior", "smoothing")
MACHINE = frozenset({"max_memory", "cache_size", "batch_size", "points_per_batch", "compile"})
"""Settings that change how much is done or held at a time, or how fast, and not the results."""
FILES_ONLY = frozenset({"leave_out_examples"})
"""Settings of files of results: in NimbusImage and in napari the examples are there already, apart from the results."""
AFTER_LEARNING = frozenset((*_SELECTION, *MACHINE, *FILES_ONLY))
"""Settings that do not change what is learned from examples."""
SIMILAR_AREAS = (0.4, 2.5)
"""With Sizes at `similar`, areas are detected from so many times that of the smallest example to so many times that of
the largest."""
_LONGEST_QUOTE = 60
_HUGE = 10**6
_WORDS = {False: ("off", "no", "false"), True: ("on", "yes", "true")}
"""What YAML reads as a bool."""
_RETIRED = frozenset({"cache_embeddings"})
"""Names in the results of earlier versions that no longer mean anything; none of them changed what is found."""


class Condition(NamedTuple):
    """When a setting has an effect.

    Parameters
    ----------
    setting
        Name of another setting.
    value
        What that one must be.
    """

    setting: str
    value: str


_GRID = Condition("method", "grid")


def _setting(
    default: Any,
    title: str,
    description: str,
    *,
    group: str,
    unit: str = "",
    only: Condition | None = None,
    **limits: Any,
) -> Any:
    extra: JsonDict = {"group": group, "unit": unit}
    if only is not None:
        extra["only"] = list(only)
    return Field(default, title=title, description=description, json_schema_extra=extra, **limits)


class Settings(BaseModel):
    """How to detect objects.

    Each field has a range, a default, a unit and a help text; ``Settings.model_fields`` has them all. Settings do not
    change: ``settings.changed({"smoothing": 1.0})`` returns others, checked like new ones.

    Raises
    ------
    SettingsError
        If a value is out of its range or of the wrong kind, or if a name is unknown. The message names the
        setting, the value and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # --- the parameters of the worker that this program replaces -----------------------------------------------
    similarity_threshold: float = _setting(
        0.5,
        "Similarity Threshold",
        "Keep a candidate whose score is at least this. Raise it when too much is found, lower it when objects are"
        " missed. With the method grid the score is the cosine similarity to the examples. Another Threshold Mode than"
        " fixed chooses the threshold itself.",
        group="matching",
        only=Condition("threshold_mode", "fixed"),
        ge=0.0,
        le=1.0,
    )
    target_occupancy: float = _setting(
        0.20,
        "Target Occupancy",
        "Method grid: share of the area of its context crop that an object fills. Lower gives more surroundings.",
        group="matching",
        only=_GRID,
        ge=0.05,
        le=0.80,
    )
    points_per_side: int = _setting(
        128,
        "Points per side",
        "Method grid: prompts along each side of the frame, or along 2,048 px of a longer side. More finds smaller "
        "objects and takes longer (with its square).",
        group="proposals",
        only=_GRID,
        unit="points",
        ge=16,
        le=256,
    )
    min_mask_area: int = _setting(
        30,
        "Min Mask Area",
        "Smallest object to consider, measured on the mask at full resolution. The method guided ignores a limit above "
        "the smallest example.",
        group="proposals",
        unit="px",
        ge=0,
        le=10**9,
    )
    max_mask_area: int = _setting(
        0,
        "Max Mask Area",
        "Largest object to consider, measured on the mask at full resolution; 0 means no limit. The method guided "
        "ignores a limit below the largest example.",
        group="proposals",
        unit="px",
        ge=0,
        le=10**9,
    )
    smoothing: float = _setting(
        0.3,
        "Smoothing",
        "Tolerance of the outline's simplification: no vertex that is dropped lay farther from the outline than "
        "this. 0 keeps every vertex.",
        group="results",
        unit="px",
        ge=0.0,
        le=100.0,
    )

    leave_out_examples: bool = _setting(
        False,
        "Leave Out Examples",
        "Write only what was found, without the examples themselves, so that the results do not hold every object.",
        group="results",
    )
    threshold_mode: Literal["fixed", "auto", "top", "otsu"] = _setting(
        "fixed",
        "Threshold Mode",
        "How the threshold of the score is chosen. fixed: it is Similarity Threshold. auto: so that about 90 % of what "
        "resembles the examples is kept. top: so that Top Percent of a frame's detections are kept. otsu: between two "
        "groups of a frame's scores.",
        group="matching",
    )
    top_percent: float = _setting(
        25.0,
        "Top Percent",
        "Threshold Mode top: share of a frame's detections to keep, the best ones.",
        group="matching",
        only=Condition("threshold_mode", "top"),
        unit="%",
        gt=0.0,
        le=100.0,
    )
    sizes: Literal["any", "similar"] = _setting(
        "any",
        "Sizes",
        "Method guided: which sizes are looked for. any: the image is searched for larger objects of the kind at half "
        "the magnification as well, and where something looks like a smaller one, at twice the magnification, which "
        "takes longer. similar: only sizes like those of the examples.",
        group="matching",
        only=Condition("method", "guided"),
    )
    size_prior: Literal["off", "soft", "strict"] = _setting(
        "off",
        "Size Prior",
        "What becomes of a detection whose area, aspect ratio or solidity is more than 2 standard deviations from that "
        "of the examples. soft: its score is lowered. strict: it is left out.",
        group="matching",
    )
    scorer: Literal["mean", "nearest", "knn", "lda"] = _setting(
        "mean",
        "Scorer",
        "Method grid: what a candidate is compared with. mean: the mean example. nearest: the nearest example, for "
        "examples of several appearances. knn: the three nearest. lda: the mean example, after evening out how "
        "candidates differ.",
        group="matching",
        only=_GRID,
    )
    occupancy_levels: Literal["one", "three"] = _setting(
        "one",
        "Occupancy Levels",
        "Method grid: context crops of each candidate. three: of 0.75, 1.25 and 2 times Target Occupancy, which takes "
        "three times as long and helps where objects vary much in size.",
        group="matching",
        only=_GRID,
    )
    features_from: Literal["crops", "frame"] = _setting(
        "crops",
        "Features From",
        "Method grid: where features are taken from. crops: a context crop of each candidate. frame: the frame as a "
        "whole, encoded once, which is much faster and worse for small objects.",
        group="matching",
        only=_GRID,
    )

    # --- the method --------------------------------------------------------------------------------------------
    method: Literal["guided", "grid"] = _setting(
        "guided",
        "Method",
        "How objects are found. guided: size, features and contrast of the examples guide the search. grid: one "
        "SAM 2 prompt at each point of a regular grid, compared with the examples by cosine similarity.",
        group="proposals",
    )
    predicted_iou_gate: float | None = _setting(
        None,
        "Predicted IoU Gate",
        "Method grid: drop a candidate whose quality SAM 2 itself predicts at or below this. Left out: the value "
        "that suits the checkpoint.",
        group="proposals",
        only=_GRID,
        ge=0.0,
        le=1.0,
    )
    stability_gate: float | None = _setting(
        None,
        "Stability Gate",
        "Method grid: drop a candidate whose stability is below this: the IoU of its masks with the mask's threshold "
        "one logit higher and one lower. Left out: the value that suits the checkpoint.",
        group="proposals",
        only=_GRID,
        ge=0.0,
        le=1.0,
    )
    box_nms_iou: float = _setting(
        0.7,
        "Box NMS IoU",
        "Method grid: of two candidates whose bounding boxes overlap by more than this IoU, the one with the lower"
        " predicted IoU is dropped.",
        group="proposals",
        only=_GRID,
        ge=0.0,
        le=1.0,
    )
    max_zoom: float = _setting(
        8.0,
        "Max Zoom",
        "Method grid: largest magnification of a context crop. Tiny objects keep more surroundings instead of "
        "being blown up into blur.",
        group="matching",
        only=_GRID,
        unit="×",
        ge=1.0,
        le=128.0,
    )
    max_examples: int = _setting(
        200,
        "Max Examples",
        "Most examples to learn from. Of more, this many are taken, spread evenly over the list.",
        group="matching",
        ge=1,
        le=100_000,
    )

    # --- the display of the images -----------------------------------------------------------------------------
    black_percentile: float = _setting(
        0.1,
        "Black Percentile",
        "Percentile of a channel's intensities that is displayed as black; of a colour image, of the darkest "
        "component of each pixel.",
        group="images",
        unit="%",
        ge=0.0,
        le=100.0,
    )
    white_percentile: float = _setting(
        99.9,
        "White Percentile",
        "Percentile of a channel's intensities that is displayed as full brightness; of a colour image, of the "
        "brightest component of each pixel.",
        group="images",
        unit="%",
        ge=0.0,
        le=100.0,
    )

    # --- the machine -------------------------------------------------------------------------------------------
    precision: Literal["auto", "float32", "bfloat16"] = _setting(
        "auto",
        "Precision",
        "Arithmetic of the model. auto: bfloat16 where the device is good at it, else float32.",
        group="machine",
    )
    compile: bool = _setting(
        False,
        "Compile",
        "Compile SAM 2's image encoder for this device. The first image then takes minutes, and later ones are faster "
        "on a GPU; on a CPU it gains nothing.",
        group="machine",
    )
    batch_size: int = _setting(
        0,
        "Batch Size",
        "Crops encoded at a time; 0 chooses by device. It is halved when GPU memory runs out.",
        group="machine",
        ge=0,
        le=4096,
    )
    points_per_batch: int = _setting(
        0,
        "Points per Batch",
        "Prompts decoded at a time; 0 chooses by device. It is halved when GPU memory runs out.",
        group="machine",
        ge=0,
        le=65536,
    )

    max_memory: float = _setting(
        0.0,
        "Max Memory",
        "Memory that the program may take, the model included; larger frames are searched in blocks that fit. 0 is "
        "half of what the machine or container allows.",
        group="machine",
        unit="GB",
        ge=0.0,
        le=10**6,
    )
    cache_size: int = _setting(
        500,
        "Cache Size",
        "Room on the disk for what was learned from examples, so that it is learned only once; 0 caches nothing.",
        group="machine",
        unit="MB",
        ge=0,
        le=10**9,
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_sentence(error.errors()[0])) from None

    @field_validator("*", mode="before")
    @classmethod
    def _word_or_number(cls, value: object, info: ValidationInfo) -> object:
        """Give a bool back as the word that YAML read it from, where that is allowed; it is no number."""
        field = cls.model_fields[str(info.field_name)]
        if not isinstance(value, bool) or field.annotation is bool:
            return value
        if bounds(field)[0] is not None:
            raise ValueError("a bool is no number")
        return next((word for word in get_args(field.annotation) if word in _WORDS[value]), value)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_mask_area and self.max_mask_area < self.min_mask_area:
            raise ValueError(
                f"Max Mask Area is {self.max_mask_area} px, which is below Min Mask Area "
                f"({self.min_mask_area} px); raise it, or set it to 0 for no limit"
            )
        if self.white_percentile <= self.black_percentile:
            raise ValueError(
                f"White Percentile is {self.white_percentile} %, which is not above Black Percentile "
                f"({self.black_percentile} %)"
            )
        return self

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> Settings:
        """Return settings that this or an earlier version has written down.

        Raises
        ------
        SettingsError
            As the constructor.
        """
        return cls(**{name: value for name, value in values.items() if name not in _RETIRED})

    def changed(self, values: Mapping[str, Any]) -> Self:
        """Return a copy with some values replaced, checked like new ones.

        Raises
        ------
        SettingsError
            As the constructor.
        """
        return type(self)(**{**self.model_dump(), **values})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy; with `update` it is :meth:`changed`, since pydantic's own checks nothing."""
        return self.changed(update) if update else super().model_copy(deep=deep)

    if not TYPE_CHECKING:  # else every assignment would pass a type checker

        def __setattr__(self, name: str, value: object) -> None:
            if name.startswith("_"):  # a subclass's own
                super().__setattr__(name, value)
                return
            raise AttributeError(
                f"Settings cannot be assigned to. Make others with settings.changed({{{name!r}: {value!r}}}), and "
                "another segmenter with these."
            )


def as_settings(given: Settings | Mapping[str, Any]) -> Settings:
    """Return settings for what a caller gives: settings, or the values of some by name.

    Raises
    ------
    SettingsError
        If it is neither, or as the constructor of :class:`Settings`.
    """
    if isinstance(given, Settings):
        return given
    try:
        return Settings(**given)
    except TypeError:  # no mapping, or one whose keys are no names
        raise SettingsError(
            f"The settings are {quoted(given)}, but they must be Settings, such as Settings(similarity_threshold=0.4)."
        ) from None


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """Return the words of a setting that is chosen from a list, none for another one."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    """Return the lowest and the highest allowed value of a numeric field, None where there is no bound."""
    low = high = None
    for constraint in field.metadata:
        low = getattr(constraint, "ge", getattr(constraint, "gt", low))
        high = getattr(constraint, "le", high)
    return low, high


def range_in_words(field: FieldInfo, value: object = None) -> str:
    """Return which numbers a field takes, such as ``from 0 to 1``; nothing for a field that takes none.

    A highest one beyond a million only keeps nonsense out, and is named only where `value` exceeds it.
    """
    low, high = bounds(field)
    if low is None:
        return ""
    if high is None or (high >= _HUGE and not (isinstance(value, (int, float)) and value > high)):
        return f"at least {low:g}"
    if any(hasattr(constraint, "gt") for constraint in field.metadata):
        return f"more than {low:g} and at most {high:g}"
    return f"from {low:g} to {high:g}"


def limits_in_words(field: FieldInfo) -> str:
    """Return the range of a numeric field with its unit, such as ``from 0 to 100 px``; nothing for another one."""
    return f"{numbers} {unit_of(field)}".rstrip() if (numbers := range_in_words(field)) else ""


def _extra(field: FieldInfo) -> JsonDict:
    """Return what :func:`_setting` says of a field where pydantic has no place of its own for it."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def unit_of(field: FieldInfo) -> str:
    """Return the unit of a field's numbers, an empty text where they have none."""
    return str(_extra(field).get("unit", ""))


def group_of(field: FieldInfo) -> str:
    """Return the name of the group that a setting is listed in."""
    return str(_extra(field)["group"])


def condition_of(field: FieldInfo) -> Condition | None:
    """Return what must be so for a setting to have an effect, None where it always has one."""
    only = _extra(field).get("only")
    return Condition(*map(str, only)) if isinstance(only, list) else None


def without_effect(settings: Settings) -> list[str]:
    """Return a sentence for each setting that is not at its default, and has no effect because of another one."""
    sentences = []
    for name, field in Settings.model_fields.items():
        value, condition = getattr(settings, name), condition_of(field)
        if condition is None or value == field.default:
            continue
        if (chosen := getattr(settings, condition.setting)) != condition.value:
            other = Settings.model_fields[condition.setting].title
            sentences.append(
                f"{field.title} was set to {value}, which has no effect with {other} {chosen}; it counts only with "
                f"{condition.value}."
            )
    return sentences


def as_number(value: object) -> object:
    """Return a number where a text is one, so that a refusal shows it without quotes; else the value as it is."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def unknown(name: str, known: Iterable[str]) -> SettingsError:
    """Return the error for a name that no setting has, with the nearest of the known ones."""
    known = list(known)
    nearest = difflib.get_close_matches(as_name(name), known, 1)
    meant = f" Did you mean {nearest[0]}?" if nearest else ""
    return SettingsError(f"There is no setting called {quoted(name)}.{meant} The settings are: {', '.join(known)}.")


def as_name(text: str) -> str:
    """Return a setting's name for what a user wrote, which may be its title: ``max_zoom`` for ``Max Zoom``."""
    return "_".join(text.casefold().replace("-", " ").replace("_", " ").split())


def quoted(value: object) -> str:
    """Return a value as it is quoted in a message: of a long one, the beginning."""
    text = re.sub(r"\s*\n\s*", " ", repr(value))  # of an array or a network it has several lines
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"


def _sentence(problem: ErrorDetails) -> str:
    """Return what pydantic reports, in a sentence."""
    if not problem["loc"]:
        return str(problem["ctx"]["error"]) + "."
    name = str(problem["loc"][0])
    field = Settings.model_fields.get(name)
    if field is None:
        return str(unknown(name, Settings.model_fields))
    value = problem["input"]
    if numbers := range_in_words(field, value):
        kind = "a whole number" if field.annotation is int else "a number"
        allowed = f"{kind} {'' if numbers.startswith('from') else 'of '}{numbers}"
        if isinstance(value, str) and "," in value:
            allowed += ", with a point before decimals"
    elif field.annotation is bool:
        allowed = "true or false"
    elif problem["type"] == "literal_error":
        allowed = str(problem["ctx"]["expected"]).replace("'", "")
    else:
        allowed = str(problem["msg"])
    default = "to leave it out" if field.default is None else repr(field.default)
    return f"{field.title} ({name}) is {quoted(value)}, but it must be {allowed}; the default is {default}."
