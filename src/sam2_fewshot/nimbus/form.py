"""The worker's form, generated from :class:`~sam2_fewshot.settings.Settings`."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sam2_fewshot.settings import FILES_ONLY, Settings, bounds, choices_of, condition_of, limits_in_words, unit_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.fields import FieldInfo

    from sam2_fewshot.settings import Condition

HOW_TO = "How it works"
TRAINING_TAG = "Training Tag"
BATCH_FIELDS = ("Batch XY", "Batch Z", "Batch Time")
MODEL = "Model"
NEGATIVE_TAG = "Negative Tag"
MORE_SETTINGS = "More settings"

FIRST_SETTINGS = (
    "similarity_threshold",
    "target_occupancy",
    "points_per_side",
    "min_mask_area",
    "max_mask_area",
    "smoothing",
)
"""The settings of the few-shot worker's published table; their fields come before the further ones."""
FURTHER_SETTINGS = ("method", "threshold_mode", "size_prior")
"""The other settings with a field of their own; all that are left go into :data:`MORE_SETTINGS`."""

_NO_LIMIT = {"max_mask_area": "Max Mask Area of 0 is no limit"}
"""Hints below widgets. They name their field, since the app puts them as near to the next one."""

_HUGE = 10**6
"""A bound beyond this only keeps nonsense out; sliders end here, and the tooltip does not mention it."""

_STEPS = """<div style="font-size: 13px; line-height: 1.4">
<ol style="padding-left: 1.3em">
<li><b>Mark</b> 5 to 20 typical objects with the polygon tool. Give them a tag, and choose it as <b>Training
Tag</b>.</li>
<li><b>Compute.</b> The frame on screen is searched. What is found gets the tag of this tool; let it be another
one.</li>
<li><b>Look</b>, mend, and compute again. When it is right, fill in the <b>Batch</b> fields.</li>
</ol>
<p style="margin: 0.5em 0"><b>Too much is found?</b> Raise the Similarity Threshold; or tag some wrong objects, and
choose that tag as Negative Tag.</p>
<p style="margin: 0"><b>Too little?</b> Lower it; or mark some missed objects as well.</p>
</div>"""
"""In the size of the app's labels; it is given 300 px of width."""


def further_settings() -> dict[str, FieldInfo]:
    """Return the settings without a field of their own, by name: those that always have an effect come first."""
    own = {*FIRST_SETTINGS, *FURTHER_SETTINGS, *FILES_ONLY}
    left = {name: field for name, field in Settings.model_fields.items() if name not in own}
    return dict(sorted(left.items(), key=lambda item: condition_of(item[1]) or ("", "")))


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
            "this dataset. Annotations with any of the tags count.",
        },
    }
    for name, of in zip(BATCH_FIELDS, ("XY positions", "Z slices", "time points"), strict=True):
        fields[name] = {
            "type": "text",
            "tooltip": f'Which {of} to look at, counted from 1: "1-3, 5-8", or "all"; "1-20:2" is every second one. '
            "Empty: the current one.",
            "vueAttrs": {"placeholder": "current one, or ex. 1-3, 5-8, 1-20:2, all", "persistentPlaceholder": True},
        }
    fields[MODEL] = {
        "type": "select",
        "items": list(checkpoints),
        "default": checkpoints[0],
        "required": True,
        "tooltip": "SAM 2 checkpoint that looks at the images. Larger ones see more and take longer; "
        "sam2.1_hiera_micro.pt is small enough to work without a GPU.",
    }
    fields.update(_own_fields(FIRST_SETTINGS))
    fields[NEGATIVE_TAG] = {
        "type": "tags",
        "tooltip": "Tag of objects that are not wanted, such as wrong detections of an earlier run. May stay empty.",
    }
    fields.update(_own_fields(FURTHER_SETTINGS))
    fields[MORE_SETTINGS] = _more()
    return {name: {**field, "displayOrder": place} for place, (name, field) in enumerate(fields.items(), 1)}


def _own_fields(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    fields = [Settings.model_fields[name] for name in names]
    return {
        str(field.title): setting_field(field, _NO_LIMIT.get(name)) for name, field in zip(names, fields, strict=True)
    }


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


def _more() -> dict[str, Any]:
    """Return the field that takes every setting without a field of its own. The app's text fields have one line."""
    settings = further_settings()
    always = [name for name, field in settings.items() if condition_of(field) is None]
    groups = [", ".join(always)]
    for condition in dict.fromkeys(filter(None, map(condition_of, settings.values()))):
        names = [name for name, field in settings.items() if condition_of(field) == condition]
        groups.append(f"With {_title(condition)} {condition.value}: {', '.join(names)}")
    allowed = "; ".join(f"{name}: {_allowed(field)}" for name, field in settings.items())
    return {
        "type": "text",
        "tooltip": f"Name = value, with commas between. May stay empty. In brackets the defaults. {allowed}.",
        "vueAttrs": {
            "placeholder": "ex. max_examples = 50, max_memory = 8",
            "persistentPlaceholder": True,
            "hint": ". ".join(groups) + ".",
            "persistentHint": True,
        },
    }


def setting_field(field: FieldInfo, hint: str | None = None) -> dict[str, Any]:
    """Return the form's field for a number or a choice, all but its place.

    A field that has no effect with the default of another says so at the beginning of its tooltip, and below its widget
    in place of `hint`.
    """
    allowed = f"{numbers[0].upper()}{numbers[1:]}. " if (numbers := limits_in_words(field)) else ""
    out: dict[str, Any] = {"tooltip": f"{field.description} {allowed}Default {field.default}."}
    if choices := choices_of(field):
        out |= {"type": "select", "items": list(choices), "required": True}
    else:
        low, high = bounds(field)
        out |= {"type": "number", "step": _step(field)}
        if low is not None:
            out["min"] = low
        if high is not None:
            out["max"] = min(high, _HUGE)  # without one the app's slider ends at 100
        if unit := unit_of(field):
            out["unit"] = unit
    out["default"] = field.default
    condition = condition_of(field)
    if condition is not None and (usual := Settings.model_fields[condition.setting].default) != condition.value:
        idle = f"No effect with {_title(condition)} {usual}"
        out["tooltip"] = f"{idle}, which is the default. {out['tooltip']}"
        hint = f"{field.title}: no effect with {_title(condition)} {usual}"
    return out if hint is None else {**out, "vueAttrs": {"hint": hint, "persistentHint": True}}


def _title(condition: Condition) -> str:
    return str(Settings.model_fields[condition.setting].title)


def _step(field: FieldInfo) -> float:
    """Return the widget's step: fine for a small range, and such that the default is one of the steps."""
    if field.annotation is int:
        return 1
    low, high = bounds(field)
    start = Decimal(str(low if low is not None else 0))
    step = Decimal("0.01") if high is not None and Decimal(str(high)) - start <= 1 else Decimal("0.1")
    while (Decimal(str(field.default)) - start) % step:
        step /= 10
    return float(step)


def _allowed(field: FieldInfo) -> str:
    """Return in a few words what a setting may be, and its default in brackets."""
    choices = ("true", "false") if field.annotation is bool else choices_of(field)
    allowed = ", ".join(choices) or limits_in_words(field).removeprefix("from ")
    default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default).lower()
    return f"{allowed} ({'by the program' if field.default is None else default})"
