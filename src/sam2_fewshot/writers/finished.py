"""An output folder read back: ``run.json`` and the frames that it lists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import InputError
from sam2_fewshot.records import Location
from sam2_fewshot.writers.journal import JOURNAL_FOLDER, preview_beside, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sam2_fewshot.writers.record import FrameRecord


_PLACE = ("xy", "z", "time", "objects")
_NUMBERS = ("similarity_threshold", "min_mask_area", "max_mask_area")


@dataclass(frozen=True)
class Finished:
    """The results in a folder.

    Parameters
    ----------
    out
        The folder.
    facts
        Content of ``run.json``.
    """

    out: Path
    facts: Mapping[str, Any]

    @property
    def previews(self) -> list[Path]:
        """Where the small picture of each frame belongs."""
        return [preview_beside(self._file(line)) for line in self.facts["frames"]]

    def preview(self, record: FrameRecord) -> Path:
        """Return where the small picture of a frame belongs."""
        return preview_beside(self.out / JOURNAL_FOLDER / record.file)

    def records(self) -> Iterator[FrameRecord]:
        """Yield the frames that ``run.json`` lists, in its order; one is in memory at a time.

        Raises
        ------
        InputError
            If a frame is missing, or is of another run than ``run.json``.
        """
        for line in self.facts["frames"]:
            record = read_record(self._file(line))
            # The stages' times, of which no two runs have the same, tell whether it is the frame that is listed.
            if record is None or _figures(record) != (line["image"], line["objects"], dict(line["seconds"])):
                raise InputError(
                    f"{self.out} holds no whole record of {line['image']} (Z {line['z']}, Time {line['time']}): a run "
                    "was cut off, or files were removed from it. Run the same sam2-fewshot segment command again; what "
                    "is finished is kept."
                )
            # A record is kept under its place in its file; where that file was in the list is told by run.json.
            yield record.moved(Location(line["xy"] - 1, line["z"] - 1, line["time"] - 1))

    def _file(self, line: Mapping[str, Any]) -> Path:
        return self.out / JOURNAL_FOLDER / PurePath(line["record"]).name


def read_finished(out: Path) -> Finished:
    """Look at an output folder.

    Raises
    ------
    InputError
        If it is not one.
    """
    try:
        facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
        _check(facts)
    except OSError:
        raise InputError(
            f"{out} holds no results: there is no run.json in it. Give the folder that was given to "
            "sam2-fewshot segment with -o."
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"{out / 'run.json'} is damaged, or is not one that sam2-fewshot wrote; run sam2-fewshot segment again."
        ) from None
    return Finished(out, facts)


def _check(facts: Any) -> None:
    """Raise an error if the content of ``run.json`` is not of the right kinds; it may have been edited."""
    kinds = {"model": dict, "versions": dict, "seconds": dict, "warnings": list, "failures": list, "tags": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(facts.get(key, kind()), kind)]
    wrong += [key for key in _NUMBERS if not isinstance(facts["settings"][key], int | float)]
    wrong += [stage for stage, time in facts.get("seconds", {}).items() if not isinstance(time, int | float)]
    for line in facts["frames"]:
        wrong += [key for key in _PLACE if not isinstance(line[key], int)]
        wrong += [] if isinstance(line["seconds"], dict) else ["seconds"]
        wrong += [key for key in ("image", "record") if not isinstance(line[key], str)]
    if wrong:
        raise TypeError(wrong[0])


def _figures(record: FrameRecord) -> tuple[str, int, dict[str, float]]:
    return record.name, len(record.detections), dict(record.seconds)
