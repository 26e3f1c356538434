"""An output folder: which files a run writes there, the results read back, and the images that they are of."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from sam2_fewshot.annotations.record import printable
from sam2_fewshot.annotations.registry import FORMATS
from sam2_fewshot.errors import InputError
from sam2_fewshot.images.addresses import image_title
from sam2_fewshot.images.registry import content_of, open_positions, signatures
from sam2_fewshot.output.journal import JOURNAL_FOLDER, preview_beside, read_record
from sam2_fewshot.records import Location, PixelSize
from sam2_fewshot.storage.files import read_whole
from sam2_fewshot.storage.locks import run_at_work

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sam2_fewshot.annotations.record import FrameRecord
    from sam2_fewshot.annotations.registry import Format

OVERLAYS = "overlays"
_PLACE = ("xy", "z", "time", "objects")
_ASKED = ("xy", "z", "time", "number")
_GIVEN = {"place": str, "position": str, "content": str, "searched": bool}
_LARGEST = 1e15
_LONGEST_NAME = 255  # bytes of a file's name, which the systems allow
_NUMBERS = ("similarity_threshold", "min_mask_area", "max_mask_area")


class ResultFile(NamedTuple):
    """A file that a run writes.

    Parameters
    ----------
    path
        Where it belongs.
    key
        What it is noted as in the journal: its path in the output folder; of overlays, of which an image may have
        many, without the plane.
    of_image
        Whether it is named after an image.
    """

    path: Path
    key: str
    of_image: bool


def files_of(out: Path, frames: Sequence[tuple[str, str]], extra: Collection[str]) -> Iterator[ResultFile]:
    """Yield the files that stand for some frames.

    Parameters
    ----------
    out
        The output folder.
    frames
        The stem of each frame's image, and the name of its overlay.
    extra
        Names of the formats that were asked for besides those that every run has.
    """
    stems = dict.fromkeys(stem for stem, _ in frames)
    for form in formats(extra):
        for stem in stems if form.per_image else [""]:
            yield ResultFile(form.path(out, stem), form.path(Path(), stem).as_posix(), form.per_image)
    for stem, overlay in frames:
        yield ResultFile(out / OVERLAYS / overlay, f"{OVERLAYS}/{stem}", of_image=True)


def formats(extra: Collection[str]) -> list[Format]:
    """Return the formats that every run has, and further ones by their names."""
    return [form for form in FORMATS.values() if form.always or form.name in extra]


def overlay_path(out: Path, stem: str, location: Location, *, is_stack: bool) -> Path:
    """Return where a frame's overlay belongs; planes of a stack are named by Z and Time, counted from 1."""
    plane = f"_Z{location.z + 1}_T{location.time + 1}" if is_stack else ""
    return out / OVERLAYS / f"{stem}{plane}.png"


class Given(NamedTuple):
    """An image that a run was given.

    Parameters
    ----------
    place
        The folders that its file is in and the file's name, with ``/`` between, spelt as in results.
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
        return (*folders, image_title(name, self.position))

    @property
    def title(self) -> str:
        """The same in one."""
        return "/".join(self.steps)

    def is_called(self, name: str) -> bool:
        """Tell whether a name, with as many folders before it as it has, can be the image's."""
        return f"/{self.title}".endswith(f"/{name}")


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
        contents = self._contents.get(printable(path.name))
        if not contents:  # else there is no need to open it
            return False
        with suppress(InputError):
            marked = signatures([source.header for source in open_positions(path)])
            return any(content_of(each) in contents for each in marked)
        return False

    @cached_property
    def _contents(self) -> Mapping[str, set[str]]:
        """What shows the content of the images that the run was given, by the names of their files."""
        found: dict[str, set[str]] = {}
        for image in self.images:
            found.setdefault(image.place.rpartition("/")[2], set()).add(image.content)
        return found

    @cached_property
    def images(self) -> list[Given]:
        """The images that the run was given, by XY; none where a version made the results that did not say it."""
        return [Given(*(image[key] for key in _GIVEN)) for image in self.facts.get("images", ())]

    def records(self, *, with_examples: bool = False) -> Iterator[FrameRecord]:
        """Yield the frames that ``run.json`` lists, in its order; one is in memory at a time.

        Parameters
        ----------
        with_examples
            Also the examples that Leave Out Examples kept out of the results.

        Raises
        ------
        InputError
            If a frame is missing, or is of another run than ``run.json``, as while that is at work.
        """
        for line in self.facts["frames"]:
            record = self._record(line, with_examples)
            if record is None:
                busy = run_at_work(self.out / JOURNAL_FOLDER)
                if busy:
                    raise InputError(f"{self.out} cannot be read now, because {busy}. Wait until it has ended.")
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
        "it. Run the command that was stopped again; what is finished is kept."
    )


def read_finished(out: Path) -> Finished:
    """Read an output folder's ``run.json``.

    Raises
    ------
    InputError
        If it is not one, or cannot be read.
    """
    path = out / "run.json"
    content = None if path.is_dir() else read_whole(path)
    if content is None:
        raise InputError(
            f"{out} holds no results: there is no run.json in it. Give the folder that was given to "
            "sam2-fewshot segment with -o."
        )
    try:
        facts = json.loads(content.decode())
        _check(facts)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"{path} is damaged, or is not one that sam2-fewshot wrote; run sam2-fewshot segment again."
        ) from None
    return Finished(out, facts)


def results_in(out: Path) -> Finished | None:
    """Return the results in a folder, None where there are none, or the file is not one that this program wrote.

    Raises
    ------
    InputError
        If it cannot be read at the moment.
    """
    try:
        return read_finished(out)
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return None


def _check(facts: Any) -> None:
    """Raise an error if the content of ``run.json`` is not of the right kinds; it may have been edited."""
    json.dumps(facts, ensure_ascii=False, allow_nan=False).encode()  # no run writes NaN, or half of a character
    kinds = {"model": dict, "versions": dict, "seconds": dict, "warnings": list, "failures": list, "tags": list}
    kinds |= {"learned": str, "mark_next": list, "written": list, "images": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(facts.get(key, kind()), kind)]
    wrong += [key for key in _NUMBERS if not _is_number(facts["settings"][key])]
    wrong += [key for place in facts.get("mark_next", ()) for key in _ASKED if not isinstance(place[key], int)]
    wrong += [stage for stage, time in facts.get("seconds", {}).items() if not _is_number(time)]
    wrong += [] if _is_number(facts.get("frames_asked", 0)) else ["frames_asked"]
    wrong += [] if isinstance((facts.get("object_model") or {"path": ""})["path"], str) else ["object_model"]
    for image in facts.get("images", ()):
        wrong += [key for key, kind in _GIVEN.items() if not isinstance(image[key], kind)]
    for line in facts["frames"]:
        wrong += [key for key in _PLACE if not isinstance(line[key], int)]
        wrong += [] if isinstance(line["seconds"], dict) else ["seconds"]
        wrong += [key for key in ("image", "record", "stem", "overlay") if not isinstance(line[key], str)]
        wrong += ["record"] if len(line["record"].encode()) > _LONGEST_NAME else []
        wrong += [key for key in ("pixel_size_um", "channels") if not isinstance(line.get(key) or [], list)]
        wrong += ["pixel_size_um"] if not all(map(_is_number, _lengths(line))) else []
    if wrong:
        raise TypeError(wrong[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= _LARGEST


def _place_of(line: Mapping[str, Any]) -> Location:
    return Location(line["xy"] - 1, line["z"] - 1, line["time"] - 1)


def _lengths(line: Mapping[str, Any]) -> Sequence[Any]:
    return line.get("pixel_size_um") or ()


def _pixel_size(line: Mapping[str, Any]) -> PixelSize | None:
    lengths = _lengths(line)
    return PixelSize(*lengths) if 2 <= len(lengths) <= 3 else None


def _figures(record: FrameRecord) -> tuple[str, int, dict[str, float]]:
    return record.name, len(record.detections), dict(record.seconds)
