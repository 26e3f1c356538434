"""Single values of a job's parameters: whatever a browser or another program may send for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sam2_fewshot.errors import SettingsError
from sam2_fewshot.nimbus.form import kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.fields import FieldInfo

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TOO_LARGE = 1e15  # beyond all ranges; NaN and infinity fail this as well
_LONGEST_QUOTE = 60


def setting_value(value: object, field: FieldInfo) -> object:
    """Return a setting's value as Settings takes it; None to leave it at its default.

    Parameters
    ----------
    value
        What the form has for it, perhaps as text.
    field
        The setting.

    Raises
    ------
    SettingsError
        If it is of another kind, or not among the choices. Ranges are left to Settings.
    """
    kind = kind_of(field)
    title = str(field.title)
    blank = value is None or (isinstance(value, str) and not value.strip())
    if kind.choices:
        return None if blank and kind.optional else chosen(value, title, kind.choices)
    if blank:
        return None
    if kind.type is bool:
        return _switch(value, title)
    if kind.type is str:
        if not isinstance(value, str):
            raise refusal(title, value, "must be a text")
        return value
    number = _number_in(value)
    if number is None:
        raise refusal(title, value, "must be a number, such as 30 or 0.5")
    return number


def chosen(value: object, title: str, items: Sequence[str]) -> str:
    """Return a select's value. One that is not offered is never replaced by another: the results would differ.

    Raises
    ------
    SettingsError
        If it is empty, or not among the items.
    """
    if isinstance(value, str) and value in items:
        return value
    said = "is empty" if value is None or value == "" else f"is {quoted(value)}, which this worker does not offer"
    raise SettingsError(
        f"{title} {said}. Choose again in the tool's settings and save the tool; there are: {', '.join(items)}."
    )


def tags_in(value: object, field: str) -> tuple[str, ...]:
    """Return the tags of a list, or a single one, each once; an empty one is none.

    Raises
    ------
    SettingsError
        If it is neither.
    """
    if value is None:
        return ()
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
        raise refusal(field, value, "must be a list of tags")
    return tuple(dict.fromkeys(tag for tag in listed if tag.strip()))


def index_in(value: object, field: str, hint: str = "") -> int | None:
    """Return an index, counted from 0; None for none.

    Parameters
    ----------
    value
        What was sent for it, perhaps as text.
    field
        Its name, for the message.
    hint
        What the message says at its end.

    Raises
    ------
    SettingsError
        If it is no whole number, or below 0.
    """
    if value is None or value == "":
        return None
    number = _number_in(value)
    if number is None or number != int(number) or number < 0:
        raise refusal(field, value, f"must be a whole number, counted from 0{hint}")
    return int(number)


def _number_in(value: object) -> int | float | None:
    """Return a number if the value is one or the text of one, None if it is not."""
    number = value
    if isinstance(value, str) and len(value) <= _LONGEST_QUOTE:
        text = value.strip()
        if _NUMBER.fullmatch(text):
            number = int(text) if text.lstrip("+-").isdecimal() else float(text)
    if isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) < _TOO_LARGE:
        return number
    return None


def _switch(value: object, title: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise refusal(title, value, "must be true or false")


def refusal(field: str, value: object, must: str) -> SettingsError:
    """Return the error that names a field and its value, and says what it must be."""
    return SettingsError(f"{field} is {quoted(value)}, but it {must}.")


def quoted(value: object) -> str:
    """Return a value as it is shown in a message: of a long one, the beginning."""
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_QUOTE else shown[:_LONGEST_QUOTE] + "…"
