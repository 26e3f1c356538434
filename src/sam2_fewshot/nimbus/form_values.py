"""From the form's values to settings: fields of their own, those of older forms, and the text of *More settings*."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import SettingsError
from sam2_fewshot.nimbus.form import (
    BATCH_FIELDS,
    FIRST_SETTINGS,
    FURTHER_SETTINGS,
    HOW_TO,
    MODEL,
    MORE_SETTINGS,
    NEGATIVE_TAG,
    TRAINING_TAG,
    further_settings,
)
from sam2_fewshot.settings import (
    FILES_ONLY,
    Settings,
    as_name,
    as_number,
    choices_of,
    quoted,
    unknown,
    without_effect,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SETTINGS = {name: field for name, field in Settings.model_fields.items() if name not in FILES_ONLY}
KNOWN_FIELDS = frozenset(
    {HOW_TO, TRAINING_TAG, NEGATIVE_TAG, MODEL, MORE_SETTINGS, *BATCH_FIELDS}
    | {str(field.title) for field in _SETTINGS.values()}
)
"""Names of fields that a job's form may have: those of this form, and of older ones, which had one for each setting."""
_OWN_FIELD = {as_name(label): label for label in (TRAINING_TAG, NEGATIVE_TAG, MODEL, *BATCH_FIELDS)} | {
    name: str(Settings.model_fields[name].title) for name in (*FIRST_SETTINGS, *FURTHER_SETTINGS)
}
_BETWEEN, _IS = re.compile("[,;，；\r\n]"), re.compile("[=:＝：]")  # also as East Asian keyboards write them
_HOW = "Write name = value, with commas between, and a point before decimals, such as max_examples = 50, max_zoom = 4.5"


def read_settings(form: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Return the settings that a form asks for, and what to tell the user about them.

    Parameters
    ----------
    form
        Values by the names of fields. What is missing is at its default; an older form's field for a setting that is
        now in *More settings* counts as well, and gives way to that.

    Raises
    ------
    SettingsError
        If a value cannot be used. The message names the field or the setting, and the value.
    """
    further = more_settings(form.get(MORE_SETTINGS))
    given: dict[str, object] = {}
    empty = []
    for name, field in _SETTINGS.items():
        title = str(field.title)
        if title not in form or (name in further and _is_blank(form[title])):
            continue
        choices, value = choices_of(field), form[title]
        if choices or not _is_blank(value):
            given[name] = chosen(value, title, choices) if choices else as_number(value)
        elif field.default is not None:
            empty.append(field)
    settings = Settings(**{**given, **further})
    remarks = [
        f"{field.title} is empty, so its default counts: {field.default}. Type a number to have another."
        for field in empty
    ]
    return settings, [*remarks, *_twice(given, further, settings), *without_effect(settings)]


def _twice(given: Mapping[str, object], further: Mapping[str, object], settings: Settings) -> Iterator[str]:
    for name in further:
        field = Settings.model_fields[name]
        # A saved tool has a value for each field of its form. One at its default does not show that anybody chose it.
        if given.get(name, field.default) not in (field.default, getattr(settings, name)):
            yield (
                f"{field.title} is {given[name]} in a field of an older form, and {further[name]} in {MORE_SETTINGS}, "
                "which counts."
            )


def more_settings(value: object) -> dict[str, object]:
    """Return the settings in the text of *More settings*, by name. Their values are checked by Settings.

    Parameters
    ----------
    value
        What the form has: ``name = value`` with commas, semicolons or line breaks between, or only blanks, which is
        what a browser makes of line breaks that are pasted. A setting's title serves as its name, and ``:`` as ``=``,
        so that the lines of a settings file can be pasted.

    Raises
    ------
    SettingsError
        If it cannot be read, names something unknown or only for files, or something twice or with a field of its own.
    """
    if value is None:
        return {}
    if not isinstance(value, str):
        raise refusal(MORE_SETTINGS, value, "must be a text like 'max_examples = 50, max_zoom = 4'")
    known = further_settings()
    found: dict[str, object] = {}
    for written, text in _pairs(value):
        name = as_name(written)
        if name in _OWN_FIELD:
            raise SettingsError(
                f"{MORE_SETTINGS} has {quoted(written)}, but {_OWN_FIELD[name]} has a field of its own in the form. "
                f"Set it there, and take it out of {MORE_SETTINGS}."
            )
        if name in FILES_ONLY:
            raise SettingsError(
                f"{MORE_SETTINGS} has {quoted(written)}, which is for results in files; here the examples stay "
                f"annotations of their own. Take it out of {MORE_SETTINGS}."
            )
        if name not in known:
            raise unknown(written, known)
        if name in found:
            raise SettingsError(f"{MORE_SETTINGS} has {name} twice. Take one of them out.")
        found[name] = as_number(text)
    return found


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values in a text, as they are written."""
    for piece in filter(None, (part.strip() for part in _BETWEEN.split(text))):
        name, *rest = (part.strip() for part in _IS.split(piece))
        if not rest:
            raise SettingsError(f"{MORE_SETTINGS}: {quoted(piece)} is not a name with a value. {_HOW}.")
        for part in rest[:-1]:  # a value, and after a blank the next name
            first, *following = part.split(maxsplit=1) or [""]
            yield _pair(piece, name, first)
            name = "".join(following)
        yield _pair(piece, name, rest[-1])


def _pair(piece: str, name: str, value: str) -> tuple[str, str]:
    value = value.strip("\"'")
    if not name or not value:
        what = "a name" if not name else f"a value of {quoted(name)}"
        raise SettingsError(f"{MORE_SETTINGS}: {what} is missing in {quoted(piece)}. {_HOW}.")
    return name, value


def chosen(value: object, title: str, items: Sequence[str]) -> str:
    """Return a select's value. One that is not offered is never replaced by another: the results would differ.

    Raises
    ------
    SettingsError
        If it is empty, or not among the items.
    """
    if isinstance(value, str) and value in items:
        return value
    problem = "is empty" if value is None or value == "" else f"is {quoted(value)}, which this worker does not offer"
    raise SettingsError(
        f"{title} {problem}. Choose again in the tool's settings and save the tool; there are: {', '.join(items)}."
    )


def refusal(field: str, value: object, must: str) -> SettingsError:
    """Return the error that names a field and its value, and says what it must be."""
    return SettingsError(f"{field} is {quoted(value)}, but it {must}.")


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
