"""What the results in an output folder were made from, and what of it has changed since."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sam2_fewshot.errors import InputError
from sam2_fewshot.job.fingerprint import AT_A_TIME
from sam2_fewshot.settings import Settings
from sam2_fewshot.writers.whole import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = "inputs.json"
_LISTED = 3
_WORDS = {
    "version": "the program's version",
    "model": "the model's weights",
    "examples": "the examples",
    "channels": "the channels' colours and contrast",
    "object_model": "the object model",
}


def changes(folder: Path, facts: Mapping[str, object]) -> list[str]:
    """Say what differs from the last run in a folder, a few words each; nothing where there was none.

    Parameters
    ----------
    folder
        The journal's folder.
    facts
        As :func:`remember` is given.
    """
    try:
        before = json.loads((folder / _NAME).read_text("utf-8"))
        settings = dict(before["settings"])
    except (OSError, ValueError, LookupError, TypeError):
        return []
    said = []
    now = facts["settings"]
    assert isinstance(now, dict)
    for name, value in now.items():
        if name not in AT_A_TIME and name in settings and settings[name] != value:
            said.append(f"{Settings.model_fields[name].title} was {settings[name]} and is {value}")
    said += [f"{words} changed" for name, words in _WORDS.items() if name in before and before[name] != facts[name]]
    return said + _images(before.get("images"), facts.get("images"))


def _images(before: object, now: object) -> list[str]:
    """Say which images are others than they were under the same path."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return []
    names = [Path(path).name for path, content in now.items() if before.get(path, content) != content]
    listed = ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")
    return [f"{len(names)} image{'s' if len(names) > 1 else ''} changed ({listed})"] if names else []


def remember(folder: Path, facts: Mapping[str, object]) -> None:
    """Write down what the results are made from.

    Parameters
    ----------
    folder
        The journal's folder.
    facts
        ``settings`` (a dict), ``version``, ``model``, ``examples``, ``channels``, ``object_model`` and ``images`` (a
        dict of what tells whether an image is the same, by its path), all of them fit for JSON.

    It only serves to say later what has changed, so that it cannot be written is no reason to stop.
    """
    with suppress(InputError), replacing(folder / _NAME) as path:
        path.write_text(json.dumps(facts, indent=1), "utf-8")


def forget(folder: Path) -> None:
    """Remove what :func:`remember` wrote."""
    (folder / _NAME).unlink(missing_ok=True)
