"""An output folder read back: its results, what they were made from, and what has changed since."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from sam2_fewshot.annotations.record import printable
from sam2_fewshot.errors import InputError, counted, listed
from sam2_fewshot.images.registry import frame_fingerprint, open_positions, signatures
from sam2_fewshot.output.files import files_of
from sam2_fewshot.output.journal import JOURNAL_FOLDER, preview_beside, read_record, unreadable
from sam2_fewshot.records import Location, PixelSize
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.digests import AT_A_TIME
from sam2_fewshot.storage.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sam2_fewshot.annotations.record import FrameRecord
    from sam2_fewshot.output.files import ResultFile

_PLACE = ("xy", "z", "time", "objects")
_ASKED = ("xy", "z", "time", "number")
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

    def files(self) -> Iterator[ResultFile]:
        """Yield the files that stand for the frames, in the output folder wherever the names in ``run.json`` lead."""
        frames = [
            (PurePath(line["stem"]).name, f"{PurePath(line['overlay']).stem}.png") for line in self.facts["frames"]
        ]
        return files_of(self.out, frames, self.facts.get("written", ()))

    @property
    def previews(self) -> list[Path]:
        """Where the small picture of each frame belongs."""
        return [preview_beside(self._file(line)) for line in self.facts["frames"]]

    def preview(self, record: FrameRecord) -> Path:
        """Return where the small picture of a frame belongs."""
        return preview_beside(self.out / JOURNAL_FOLDER / record.file)

    def has_searched(self, path: Path) -> bool:
        """Tell whether a file is one of the images that the run was given, also where it was moved since."""
        if f"/{path.name} " not in self._names_searched:  # else there is no need to open it
            return False
        with suppress(InputError):
            marked = signatures([source.header for source in open_positions(path)])
            return any(frame_fingerprint("", each) in self._searched for each in marked)
        return False

    @cached_property
    def _searched(self) -> frozenset[str]:
        """What shows that an image, of that name, is one of those that the run was given."""
        return frozenset(map(str, self._images.values()))

    @cached_property
    def _names_searched(self) -> str:
        """The paths of these, each behind a slash and before a blank, as is between a file and its position."""
        return "".join(f"/{path} " for path in self._images)

    @cached_property
    def _images(self) -> Mapping[str, Any]:
        images = _inputs(self.out / JOURNAL_FOLDER).get("images")
        return images if isinstance(images, dict) else {}

    def records(self, *, with_examples: bool = False) -> Iterator[FrameRecord]:
        """Yield the frames that ``run.json`` lists, in its order; one is in memory at a time.

        Parameters
        ----------
        with_examples
            Also the examples that Leave Out Examples kept out of the results.

        Raises
        ------
        InputError
            If a frame is missing, or is of another run than ``run.json``.
        """
        for line in self.facts["frames"]:
            record = self._record(line, with_examples)
            if record is None:
                raise lost_record(self.out, line["image"], line["z"], line["time"])
            yield record

    def record(self, location: Location) -> FrameRecord | None:
        """Return the frame at a location, None where ``run.json`` lists none there, or its file is missing."""
        line = self._lines.get(location)
        return None if line is None else self._record(line)

    @cached_property
    def _lines(self) -> dict[Location, Mapping[str, Any]]:
        """The lines of the frames by their place, the first where the file was edited and has several."""
        return {_place_of(line): line for line in reversed(self.facts["frames"])}

    def _record(self, line: Mapping[str, Any], with_examples: bool = False) -> FrameRecord | None:
        record = read_record(self._file(line))
        if record is None:
            return None
        left_out = self.facts["settings"].get("leave_out_examples", False)
        listed = record.without_examples() if left_out else record
        # No two runs take the same times for their stages, which show whether this is the listed frame.
        if _figures(listed) != (line["image"], line["objects"], dict(line["seconds"])):
            return None
        # A record has the frame's place in its file; run.json has the place of that file in the list.
        moved = (record if with_examples else listed).moved(_place_of(line))
        return replace(
            moved,
            stem=PurePath(line["stem"]).name,
            position=str(line.get("position", "")),
            full_name=str(line.get("file", "")),
            pixel_size=_pixel_size(line),
            channel_names=tuple(None if name is None else str(name) for name in line.get("channels") or ()),
        )

    def _file(self, line: Mapping[str, Any]) -> Path:
        return self.out / JOURNAL_FOLDER / PurePath(line["record"]).name


def lost_record(out: Path, image: str, z: int, time: int) -> InputError:
    """Return the error for a frame that was finished, and whose record is missing or damaged."""
    return InputError(
        f"{out} holds no whole record of {image} (Z {z}, Time {time}): a run was cut off, or files were removed from "
        "it. Run the same sam2-fewshot segment command again; what is finished is kept."
    )


def read_finished(out: Path) -> Finished:
    """Read an output folder's ``run.json``.

    Raises
    ------
    InputError
        If it is not one, or cannot be read.
    """
    try:
        facts = json.loads((out / "run.json").read_text(encoding="utf-8"))
        _check(facts)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{out} holds no results: there is no run.json in it. Give the folder that was given to "
            "sam2-fewshot segment with -o."
        ) from None
    except OSError as error:
        raise unreadable(out / "run.json", error) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"{out / 'run.json'} is damaged, or is not one that sam2-fewshot wrote; run sam2-fewshot segment again."
        ) from None
    return Finished(out, facts)


def _check(facts: Any) -> None:
    """Raise an error if the content of ``run.json`` is not of the right kinds; it may have been edited."""
    kinds = {"model": dict, "versions": dict, "seconds": dict, "warnings": list, "failures": list, "tags": list}
    kinds |= {"learned": str, "mark_next": list, "written": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(facts.get(key, kind()), kind)]
    wrong += [key for key in _NUMBERS if not isinstance(facts["settings"][key], int | float)]
    wrong += [key for place in facts.get("mark_next", ()) for key in _ASKED if not isinstance(place[key], int)]
    wrong += [stage for stage, time in facts.get("seconds", {}).items() if not isinstance(time, int | float)]
    for line in facts["frames"]:
        wrong += [key for key in _PLACE if not isinstance(line[key], int)]
        wrong += [] if isinstance(line["seconds"], dict) else ["seconds"]
        wrong += [key for key in ("image", "record", "stem", "overlay") if not isinstance(line[key], str)]
        wrong += [key for key in ("pixel_size_um", "channels") if not isinstance(line.get(key) or [], list)]
        wrong += ["pixel_size_um"] if any(not isinstance(each, int | float) for each in _lengths(line)) else []
    if wrong:
        raise TypeError(wrong[0])


def _place_of(line: Mapping[str, Any]) -> Location:
    return Location(line["xy"] - 1, line["z"] - 1, line["time"] - 1)


def _lengths(line: Mapping[str, Any]) -> Sequence[Any]:
    return line.get("pixel_size_um") or ()


def _pixel_size(line: Mapping[str, Any]) -> PixelSize | None:
    lengths = _lengths(line)
    return PixelSize(*lengths) if 2 <= len(lengths) <= 3 else None


def _figures(record: FrameRecord) -> tuple[str, int, dict[str, float]]:
    return record.name, len(record.detections), dict(record.seconds)


_INPUTS = "inputs.json"
_LISTED = 3
_WORDS = {
    "version": "the program's version",
    "model": "the model's weights",
    "examples": "the examples",
    "channels": "the channels' colours and contrast",
    "object_model": "the object model",
}


def changes(folder: Path, facts: Mapping[str, object]) -> list[str]:
    """Return what differs from the last run in a folder, a few words each; nothing where there was none.

    Parameters
    ----------
    folder
        The journal's folder.
    facts
        As :func:`remember` is given.
    """
    before, settings = _inputs(folder), settings_before(folder)
    if not settings:
        return []
    now = facts["settings"]
    assert isinstance(now, dict)
    changed = [
        f"{Settings.model_fields[name].title} was {settings[name]} and is {value}"
        for name, value in now.items()
        if name not in AT_A_TIME and name in settings and settings[name] != value
    ]
    changed += [f"{words} changed" for name, words in _WORDS.items() if name in before and before[name] != facts[name]]
    return changed + _images(before.get("images"), facts.get("images"))


def settings_before(folder: Path) -> dict[str, Any]:
    """Return the settings of the last run in a folder by name; none where nothing is recorded.

    Parameters
    ----------
    folder
        The journal's folder.
    """
    settings = _inputs(folder).get("settings")
    return settings if isinstance(settings, dict) else {}


class Given(NamedTuple):
    """An image that a run was given.

    Parameters
    ----------
    place
        The folders that its file is in and the file's name, with ``/`` between.
    position
        Its name among several of the file; else empty.
    content
        What shows whether it has the same content.
    searched
        Whether it was to be searched.
    """

    place: str
    position: str
    content: str
    searched: bool

    @property
    def steps(self) -> tuple[str, ...]:
        """The folders, the outermost first, and what it is called in the last one."""
        *folders, name = self.place.split("/")
        return (*folders, f"{name} {self.position}" if self.position else name)

    @property
    def title(self) -> str:
        """The same in one, as it is spelt in results."""
        return printable("/".join(self.steps))

    def is_called(self, name: str) -> bool:
        """Tell whether a name, with as many folders before it as it has, can be the image's."""
        return f"/{self.title}".endswith(f"/{name}")


def given_before(folder: Path) -> list[Given]:
    """Return the images that the last run in a folder was given, by XY; none where nothing is recorded.

    Parameters
    ----------
    folder
        The journal's folder.
    """
    given = _inputs(folder).get("given", ())
    try:
        return [
            Given(str(place), str(position), str(content), bool(searched))
            for place, position, content, searched in given
        ]
    except (TypeError, ValueError):  # edited
        return []


def _inputs(folder: Path) -> dict[str, Any]:
    """Return what :func:`remember` wrote; nothing where that is missing or damaged.

    Raises
    ------
    InputError
        If it cannot be read at the moment.
    """
    try:
        return dict(json.loads((folder / _INPUTS).read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise unreadable(folder / _INPUTS, error) from error
    except (ValueError, TypeError, RecursionError):
        return {}


def _images(before: object, now: object) -> list[str]:
    """Return which images are others than they were under the same path."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return []
    names = [Path(path).name for path, content in now.items() if before.get(path, content) != content]
    return [f"{counted(len(names), 'image')} changed ({listed(names, _LISTED)})"] if names else []


def remember(folder: Path, facts: Mapping[str, object]) -> None:
    """Record what the results are made from, and what files they will be.

    Parameters
    ----------
    folder
        The journal's folder.
    facts
        ``settings`` (a dict), ``version``, ``model``, ``examples``, ``channels``, ``object_model``, ``images`` (a
        dict of each image's signature by its path), ``given`` (a list of :class:`Given`) and ``results`` (a list, see
        :func:`remembered`), all of them fit for JSON.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    write_whole(folder / _INPUTS, json.dumps(facts, indent=1).encode())


def remembered(folder: Path) -> list[str]:
    """Return the ``results`` of :func:`remember`, by which runs know their files; none where nothing is recorded.

    Parameters
    ----------
    folder
        The journal's folder.
    """
    results = _inputs(folder).get("results")
    return [str(result) for result in results] if isinstance(results, list) else []


def took_no_notes(folder: Path) -> bool:
    """Tell whether the last run in a folder was of a version that did not note its ``results``.

    Parameters
    ----------
    folder
        The journal's folder.
    """
    inputs = _inputs(folder)
    return bool(inputs) and "results" not in inputs


def forget(folder: Path) -> None:
    """Remove what :func:`remember` wrote."""
    (folder / _INPUTS).unlink(missing_ok=True)
