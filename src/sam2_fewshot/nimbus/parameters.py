"""What a user asked for in the browser, checked before anything heavy begins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import SettingsError, listed
from sam2_fewshot.images.addresses import parse_range
from sam2_fewshot.nimbus.form import BATCH_FIELDS, MODEL, NEGATIVE_TAG, TRAINING_TAG
from sam2_fewshot.nimbus.form_values import KNOWN_FIELDS, chosen, read_settings, refusal
from sam2_fewshot.records import Location
from sam2_fewshot.settings import as_number, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sam2_fewshot.settings import Settings

_ORIGIN = Location()
_MOST = 10**15  # beyond all datasets; NaN and infinity fail this as well


@dataclass(frozen=True, slots=True)
class DatasetSize:
    """How many positions, slices, time points and channels a dataset has, each at least 1."""

    xy: int = 1
    z: int = 1
    time: int = 1
    channels: int = 1


@dataclass(frozen=True, slots=True)
class ConnectTo:
    """To what each found object is connected: to the nearest annotation with these tags.

    Parameters
    ----------
    tags
        At least one.
    channel
        Counted from 0; None for any.
    """

    tags: tuple[str, ...]
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asks for.

    Parameters
    ----------
    settings
        How to search.
    model
        File name of a checkpoint that is present.
    training_tags, negative_tags
        Tags of the examples; an annotation with any of them counts. There is at least one training tag.
    output_tags
        What the found objects are tagged with; may be empty.
    channel
        Channel of the found objects, counted from 0; None where the job names none.
    tile
        The frame on the user's screen.
    assignment
        The frame that the tool assigns its results to; the browser sends the same as `tile`.
    connect_to
        To what the found objects are connected; None for nothing.
    batch
        Which positions, slices and time points, as the user wrote it, counted from 1; empty for the current one.
    tool
        Id of the tool; empty where the job names none.
    remarks
        Sentences to warn the user with, although the work goes on.
    """

    settings: Settings
    model: str
    training_tags: tuple[str, ...]
    negative_tags: tuple[str, ...] = ()
    output_tags: tuple[str, ...] = ()
    channel: int | None = None
    tile: Location = _ORIGIN
    assignment: Location = _ORIGIN
    connect_to: ConnectTo | None = None
    batch: tuple[str, str, str] = ("", "", "")
    tool: str = ""
    remarks: tuple[str, ...] = ()

    def locations(self, size: DatasetSize) -> list[Location]:
        """Return the frames to search: by position, then slice, then time, each rising.

        Raises
        ------
        SettingsError
            If a frame is asked for that the dataset does not have, or what was written is no range.
        """
        counts = (size.xy, size.z, size.time)
        current = (self.tile.xy, self.tile.z, self.tile.time)
        xy, z, time = (
            _indices(text, count, field, here)
            for text, count, field, here in zip(self.batch, counts, BATCH_FIELDS, current, strict=True)
        )
        return [Location(a, b, c) for a in xy for b in z for c in time]

    def result_channel(self, size: DatasetSize) -> int:
        """Return the channel of the found objects, counted from 0; the first where the job names none.

        Raises
        ------
        SettingsError
            If the dataset does not have it.
        """
        channel = self.channel or 0
        if channel >= size.channels:
            raise SettingsError(
                f"The tool puts its results into channel {channel + 1}, but this dataset has {size.channels}. Choose "
                "a layer of this dataset in the tool's settings."
            )
        return channel


def read_parameters(raw: Mapping[str, Any], checkpoints: Sequence[str]) -> Request:
    """Check a job's parameters.

    Parameters
    ----------
    raw
        The parameters as the server hands them over; anything may be missing or null.
    checkpoints
        File names of the checkpoints that are present, the best first.

    Raises
    ------
    SettingsError
        If a value cannot be used. The message names the field and the value.
    """
    form = _object(raw.get("workerInterface"), "workerInterface", "the form's values by their field names")
    training = _tags(form.get(TRAINING_TAG), TRAINING_TAG)
    negative = _tags(form.get(NEGATIVE_TAG), NEGATIVE_TAG)
    if not training:
        raise SettingsError(
            f"{TRAINING_TAG} is empty. Outline 5 to 20 typical objects, give them a tag, and choose that tag in the "
            "tool's settings."
        )
    if both := [tag for tag in training if tag in negative]:
        raise SettingsError(
            f"{quoted(both[0])} is given as {TRAINING_TAG} and as {NEGATIVE_TAG}. Take it out of one of them."
        )
    tile = _position(raw.get("tile"), "tile")
    xy, z, time = (_range_text(form.get(field), field) for field in BATCH_FIELDS)
    settings, remarks = read_settings(form)
    request = Request(
        settings=settings,
        model=chosen(form[MODEL], MODEL, checkpoints) if MODEL in form else checkpoints[0],
        training_tags=training,
        negative_tags=negative,
        output_tags=_tags(raw.get("tags"), "tags"),
        channel=_index(raw.get("channel"), "channel"),
        tile=tile,
        assignment=tile if raw.get("assignment") is None else _position(raw["assignment"], "assignment"),
        connect_to=_connect_to(raw.get("connectTo")),
        batch=(xy, z, time),
        tool=tool if isinstance(tool := raw.get("id"), str) else "",
    )
    return replace(request, remarks=(*_remarks(request), *remarks, *_unknown(form)))


def _object(value: object, field: str, content: str) -> dict[str, Any]:
    """Return a JSON object, an empty one for none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refusal(field, value, f"must be an object with {content}")
    return value


def _remarks(request: Request) -> Iterator[str]:
    """Yield what is allowed but hardly meant."""
    for tags, field, effect in (
        (request.training_tags, TRAINING_TAG, "as an example"),
        (request.negative_tags, NEGATIVE_TAG, "as an example of what is not wanted"),
    ):
        if own := [tag for tag in request.output_tags if tag in tags]:
            yield (
                f"The found objects get the tag {quoted(own[0])}, which is also the {field}: the next run will take "
                f"every one of them {effect}. Give the tool another tag for its results."
            )
    if request.assignment != request.tile and not all(request.batch):
        yield (
            f"The job was assigned to {place_in_words(request.assignment)} but posted from "
            f"{place_in_words(request.tile)}. Where a Batch field is empty, the latter counts."
        )


def _unknown(form: Mapping[str, Any]) -> Iterator[str]:
    if unknown := [str(name) for name in form if name not in KNOWN_FIELDS]:
        names = listed([quoted(name) for name in unknown], 5)
        yield (
            "The tool was saved with values that this version of the worker does not know, and they have no effect: "
            f"{names}."
        )


def _range_text(value: object, field: str) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise refusal(field, value, "must be a text like '1-3, 5' or 'all'")
    return value if value.replace(",", "").strip() else ""


def _indices(text: str, count: int, field: str, current: int) -> tuple[int, ...]:
    if text:
        return parse_range(text, count, field)
    if current >= count:
        allowed = f"1-{count} is" if count > 1 else "only 1 is"
        raise SettingsError(
            f"{field} is empty, which means the current one, {current + 1}; but {allowed} valid in this dataset."
        )
    return (current,)


def _position(value: object, field: str) -> Location:
    place = _object(value, field, "XY, Z and Time")
    hint = " (ranges of frames go into the Batch fields)"
    xy, z, time = (_index(place.get(axis), f"{field} {axis}", hint) or 0 for axis in ("XY", "Z", "Time"))
    return Location(xy, z, time)


def _connect_to(value: object) -> ConnectTo | None:
    wanted = _object(value, "connectTo", "tags and channel")
    tags = _tags(wanted.get("tags"), "connectTo tags")
    return ConnectTo(tags, _index(wanted.get("channel"), "connectTo channel")) if tags else None


def place_in_words(location: Location) -> str:
    """Return XY, Z and Time as the app displays them, counted from 1."""
    return f"XY {location.xy + 1}, Z {location.z + 1}, Time {location.time + 1}"


def _tags(value: object, field: str) -> tuple[str, ...]:
    """Return the tags of a list, or a single one, each once; an empty one is none."""
    if value is None:
        return ()
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
        raise refusal(field, value, "must be a list of tags")
    return tuple(dict.fromkeys(tag for tag in listed if tag.strip()))


def _index(value: object, field: str, hint: str = "") -> int | None:
    """Return an index, counted from 0, perhaps sent as text; None for none. The hint ends the message of a refusal."""
    if value is None or value == "":
        return None
    number = as_number(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < _MOST or number % 1:
        raise refusal(field, value, f"must be a whole number, counted from 0{hint}")
    return int(number)
