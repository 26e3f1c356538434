"""What a run notes in the journal's folder as it begins, for the next run there.

A run that is killed leaves them beside the results of another, of which only ``run.json`` tells.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import counted, listed
from sam2_fewshot.settings import MACHINE, Settings
from sam2_fewshot.storage.files import read_whole, telling, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

_LISTED = 3
_WORDS = {
    "version": "the program's version",
    "model": "the model's weights",
    "examples": "the examples",
    "channels": "the channels' colours and contrast",
    "object_model": "the object model",
}


@dataclass(frozen=True)
class Notes:
    """The notes of the last run in a folder.

    Parameters
    ----------
    path
        Their file.
    content
        Of the file; None where there is none.
    """

    path: Path
    content: bytes | None

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """What the run noted; nothing where that is missing or damaged."""
        try:
            return dict(json.loads(self.content or b"{}"))
        except (ValueError, TypeError, RecursionError):
            return {}

    @property
    def results(self) -> list[str]:
        """The files by which runs know their results; none where nothing is noted."""
        return self._listed("results")

    @property
    def written(self) -> list[str]:
        """Those that runs began to put in place, and may have left where they were killed."""
        return self._listed("written")

    def _listed(self, name: str) -> list[str]:
        found = self._facts.get(name)
        return [str(each) for each in found] if isinstance(found, list) else []

    @property
    def settings(self) -> Mapping[str, Any]:
        """The run's settings by name; none where nothing is noted."""
        settings = self._facts.get("settings")
        return settings if isinstance(settings, dict) else {}

    @property
    def lack_results(self) -> bool:
        """Whether the run was of a version that did not note its results."""
        return bool(self._facts) and "results" not in self._facts

    def changes(self, facts: Mapping[str, object]) -> list[str]:
        """Return what differs from the last run, a few words each; nothing where there was none.

        Parameters
        ----------
        facts
            As :meth:`write` is given.
        """
        before = self._facts
        settings, now = self.settings, facts["settings"]
        if not settings:
            return []
        assert isinstance(now, dict)
        changed = [
            f"{Settings.model_fields[name].title} was {settings[name]} and is {value}"
            for name, value in now.items()
            if name not in MACHINE and name in settings and settings[name] != value
        ]
        # Another version may note the same images, and so the examples on them, in another way.
        is_same = before.get("version", facts["version"]) == facts["version"]
        changed += [
            f"{words} changed"
            for name, words in _WORDS.items()
            if name in before and before[name] != facts[name] and (is_same or name != "examples")
        ]
        return changed + _images(before.get("images"), facts.get("images")) if is_same else changed

    def write(self, facts: Mapping[str, object]) -> None:
        """Note what results will be made from, and what files they will be.

        Parameters
        ----------
        facts
            ``settings`` (a dict), ``version``, ``model``, ``examples``, ``channels``, ``object_model``, ``images`` (a
            dict of each image's signature by its path), ``results`` and ``written`` (lists), all of them fit for JSON.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        write_whole(self.path, json.dumps(facts, indent=1).encode())

    def put_back(self) -> None:
        """Put these notes in place of those that were written since.

        Raises
        ------
        InputError
            If they cannot be written.
        """
        if self.content is None:
            with telling(self.path):
                self.path.unlink(missing_ok=True)
        else:
            write_whole(self.path, self.content)


def read_notes(folder: Path) -> Notes:
    """Return the notes of the last run.

    Parameters
    ----------
    folder
        The journal's folder.

    Raises
    ------
    InputError
        If they cannot be read at the moment.
    """
    path = folder / "inputs.json"
    return Notes(path, read_whole(path))


def _images(before: object, now: object) -> list[str]:
    """Return which images are others than they were under the same path."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return []
    names = [Path(path).name for path, content in now.items() if before.get(path, content) != content]
    return [f"{counted(len(names), 'image')} changed ({listed(names, _LISTED)})"] if names else []
