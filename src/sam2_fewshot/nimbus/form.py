"""The worker's form, generated from :class:`~sam2_fewshot.settings.Settings`."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from sam2_fewshot.settings import Settings, bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.fields import FieldInfo

HOW_TO = "How it works"
TRAINING_TAG = "Training Tag"
BATCH_FIELDS = ("Batch XY", "Batch Z", "Batch Time")
MODEL = "Model"
NEGATIVE_TAG = "Negative Tag"

FIRST_SETTINGS = (
    "similarity_threshold",
    "target_occupancy",
    "points_per_side",
    "min_mask_area",
    "max_mask_area",
    "smoothing",
)
"""The settings of the few-shot worker's published table; their fields come before the further ones."""

_HUGE = 10**6
"""A bound beyond this only keeps nonsense out; sliders end here, and the tooltip does not mention it."""

_STEPS = """<p>Mark a few objects, and every similar one is found. Nothing is trained.</p>
<ol>
<li><b>Mark.</b> Outline 5 to 20 typical objects with the polygon tool, on any frame of this dataset, give them a tag,
and choose that tag as <b>Training Tag</b>.</li>
<li><b>Run.</b> Give the tool another tag and a layer for the objects that it finds, and compute. It looks at the frame
on screen, or at those of <b>Batch XY</b>, <b>Batch Z</b> and <b>Batch Time</b>.</li>
<li><b>Mend.</b> Too much is found: raise the <b>Similarity Threshold</b>, or tag some wrong detections and choose their
tag as <b>Negative Tag</b>. Objects are missed: lower the threshold, or mark some of them as well.</li>
</ol>"""


@dataclass(frozen=True, slots=True)
class Kind:
    """What kind of value a setting takes.

    Parameters
    ----------
    type
        int, float, bool or str; str where there are `choices`.
    choices
        The allowed values of a setting that is chosen from a list.
    optional
        None is allowed, which leaves the choice to the program.
    """

    type: type[Any]
    choices: tuple[str, ...] = ()
    optional: bool = False


def kind_of(field: FieldInfo) -> Kind:
    """Return what kind of value a setting takes, from its annotation.

    Raises
    ------
    TypeError
        If it is of a kind that the form has no field for.
    """
    union = get_origin(field.annotation) in (Union, UnionType)
    parts: list[Any] = [part for part in get_args(field.annotation) if part is not NoneType]
    if not union:
        parts = [field.annotation]
    optional = union and NoneType in get_args(field.annotation)
    if len(parts) == 1:
        choices = get_args(parts[0]) if get_origin(parts[0]) is Literal else ()
        if choices and all(isinstance(choice, str) for choice in choices):
            return Kind(str, choices, optional)
        if parts[0] in (int, float, bool, str):
            return Kind(parts[0], (), optional)
    raise TypeError(f"The form has no field for a setting of the type {field.annotation}.")


def settings_in_order() -> dict[str, FieldInfo]:
    """Return the settings by name in the order of their fields: the published table's first."""
    fields = Settings.model_fields
    return {name: fields[name] for name in (*FIRST_SETTINGS, *(name for name in fields if name not in FIRST_SETTINGS))}


def interface(checkpoints: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the form: a dict of the fields by their names, which are their labels as well.

    Parameters
    ----------
    checkpoints
        File names of the checkpoints to choose from, the best first; the first is the default.

    Returns
    -------
    dict
        What ``POST worker_interface`` takes. The server sorts the fields by name, so each has its
        ``displayOrder``.
    """
    fields: dict[str, dict[str, Any]] = {
        HOW_TO: {"type": "notes", "value": _STEPS},
        TRAINING_TAG: {
            "type": "tags",
            "tooltip": "Tag of the examples: 5 to 20 typical objects, outlined or marked with points, anywhere in "
            "this dataset.\nAnnotations with any of the tags count.",
        },
    }
    for name, of in zip(BATCH_FIELDS, ("XY positions", "Z slices", "time points"), strict=True):
        fields[name] = _batch(of)
    fields[MODEL] = {
        "type": "select",
        "items": list(checkpoints),
        "default": checkpoints[0],
        "required": True,
        "tooltip": "SAM 2 checkpoint that looks at the images. Larger ones see more and take longer; "
        "sam2.1_hiera_micro.pt is small enough to work without a GPU.",
    }
    settings = [(str(field.title), setting_field(field)) for field in settings_in_order().values()]
    first = len(FIRST_SETTINGS)
    fields.update(settings[:first])
    fields[NEGATIVE_TAG] = {
        "type": "tags",
        "tooltip": "Tag of objects that are not wanted, such as wrong detections of an earlier run. May stay empty.",
    }
    fields.update(settings[first:])
    return {name: {**field, "displayOrder": place} for place, (name, field) in enumerate(fields.items(), 1)}


def present_checkpoints() -> list[str]:
    """Return the file names of the checkpoints on this machine, the best first.

    The known ones come in the order of ``auto``, then others that somebody put into one of the folders.

    Raises
    ------
    CheckpointError
        If the environment names a folder that does not exist, or if there is no checkpoint at all.
    """
    from sam2_fewshot.backbones import available, resolve, search_folders

    names = [found.checkpoint.name for found in available()] or [resolve("auto").checkpoint.name]
    others = {path.name for folder in search_folders() for path in folder.glob("*.pt") if path.is_file()}
    return names + sorted(others.difference(names))


def _batch(of: str) -> dict[str, Any]:
    return {
        "type": "text",
        "tooltip": f'Which {of} to look at, counted from 1: "1-3, 5-8" or "all". Empty: the current one.',
        "vueAttrs": {
            "placeholder": "ex. 1-3, 5-8, or all",
            "label": f"Enter the {of} to look at",
            "persistentPlaceholder": True,
            "filled": True,
        },
    }


def setting_field(field: FieldInfo) -> dict[str, Any]:
    """Return the form's field for a setting, all but its place."""
    kind = kind_of(field)
    out: dict[str, Any] = {"tooltip": _tooltip(field, kind)}
    if kind.choices:
        out |= {"type": "select", "items": list(kind.choices), "required": not kind.optional}
    elif kind.type is bool:
        out["type"] = "checkbox"
    elif kind.optional:
        # A text even where it is a number: the browser sends 0 for a number without a default.
        out |= {"type": "text", "vueAttrs": {"placeholder": "chosen by the program", "persistentPlaceholder": True}}
    elif kind.type is str:
        out["type"] = "text"
    else:
        out |= {"type": "number", **_range(field, kind)}
    if field.default is not None:
        out["default"] = field.default
    return out


def _range(field: FieldInfo, kind: Kind) -> dict[str, Any]:
    low, high = bounds(field)
    out: dict[str, Any] = {"step": _step(field, kind)}
    if low is not None:
        out["min"] = low
    if high is not None:
        out["max"] = min(high, _HUGE)  # without one the app's slider ends at 100
    if unit := _unit(field):
        out["unit"] = unit
    return out


def _step(field: FieldInfo, kind: Kind) -> float:
    """Return the widget's step: fine for a small range, and such that the default is one of the steps."""
    if kind.type is int:
        return 1
    low, high = bounds(field)
    start = Decimal(str(low if low is not None else 0))
    step = Decimal("0.01") if high is not None and Decimal(str(high)) - start <= 1 else Decimal("0.1")
    while (Decimal(str(field.default)) - start) % step:
        step /= 10
    return float(step)


def _tooltip(field: FieldInfo, kind: Kind) -> str:
    low, high = bounds(field)
    unit = f" {unit}" if (unit := _unit(field)) else ""
    allowed = default = ""
    if low is not None:
        between = f"From {low:g} to {high:g}" if high is not None and high < _HUGE else f"At least {low:g}"
        allowed = f"{between}{unit}. "
    if field.default is None:
        default = "Empty: chosen by the program."
    elif kind.type is not bool and field.default != "":
        default = f"Default {field.default}."
    return f"{field.description}\n{allowed}{default}".strip()


def _unit(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""
