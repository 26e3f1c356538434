"""The request of a run on files, what makes it unusable, and the request that an output folder was made by."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_fewshot.annotations.record import as_named
from sam2_fewshot.backbones import lasting_name
from sam2_fewshot.errors import InputError, command_line
from sam2_fewshot.files.corrections import CORRECTIONS
from sam2_fewshot.images.addresses import check_address, remote
from sam2_fewshot.images.source import reading
from sam2_fewshot.object_model import read_object_model
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Request:
    """What a user asks for; a path may also be given as a text.

    Parameters
    ----------
    images
        Image files or folders of them; their order is XY.
    examples
        File or folder with the marked examples; None with an object model.
    out
        Output folder; it is made when it is missing.
    training_tag, negative_tag
        Tag or class of the examples of what is wanted, and of what is not.
    tags
        Tags of the detections; the training tag, or "object", when there are none.
    model, device
        Checkpoint and device, "auto" to choose.
    batch_xy, batch_z, batch_time
        Which frames, counted from 1, such as "1-3, 5"; None or "all" for all.
    channels
        YAML file with the colour and contrast of each channel.
    settings
        How to detect objects.
    corrections
        Files with objects that the user marked as right or wrong in earlier results; see
        :func:`~sam2_fewshot.files.corrections.read_corrections`.
    earlier
        Folder with results of the same images: of `images` those are searched that these results are of, and not
        `batch_xy`. Finished frames are taken over where they would come out the same, and the exact masks of the
        objects in `corrections` are taken from there.
    write
        Names of further result files, of :data:`~sam2_fewshot.annotations.registry.ON_REQUEST`.
    object_model
        File with what was learned before, instead of examples.
    save_model
        Where to save what is learned; None for nowhere.
    boxes
        Whether rectangles among the examples are boxes around objects.
    examples_on
        Name of the image that the examples of a single file lie on; None to go by the file's name.
    """

    images: Sequence[Path]
    examples: Path | None
    out: Path
    training_tag: str | None = None
    negative_tag: str | None = None
    tags: Sequence[str] = ()
    model: str = "auto"
    device: str = "auto"
    batch_xy: str | None = None
    batch_z: str | None = None
    batch_time: str | None = None
    channels: Path | None = None
    settings: Settings = field(default_factory=Settings)
    corrections: Sequence[Path] = ()
    earlier: Path | None = None
    write: Sequence[str] = ()
    object_model: Path | None = None
    save_model: Path | None = None
    boxes: bool = False
    examples_on: str | None = None

    def __post_init__(self) -> None:
        """Make paths of texts."""
        for name in ("examples", "out", "channels", "earlier", "object_model", "save_model"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(value))
        for name in ("images", "corrections"):
            object.__setattr__(self, name, [Path(path) for path in getattr(self, name)])

    @property
    def output_tags(self) -> list[str]:
        """The tags that the detections get, each once."""
        given = dict.fromkeys(tag.strip() for tag in self.tags)
        return [tag for tag in given if tag] or [self.training_tag or "object"]


_PATHS = ("examples", "object_model", "channels")
_TEXTS = ("training_tag", "negative_tag", "batch_xy", "batch_z", "batch_time")


def as_facts(request: Request, model: str) -> dict[str, object]:
    """Return a request for ``run.json``.

    Parameters
    ----------
    request
        What was asked for.
    model
        The checkpoint that was taken for ``auto``.
    """
    return {
        "images": [_absolute(path) for path in request.images],
        **{name: _absolute(path) if (path := getattr(request, name)) else None for name in _PATHS},
        "tags": list(request.tags),
        "write": list(request.write),
        "model": model if request.model == "auto" else lasting_name(request.model),
        "device": request.device,
        "boxes": request.boxes,
        "examples_on": request.examples_on,
        **{name: getattr(request, name) for name in _TEXTS},
    }


def as_command(request: Request) -> str:
    """Return the command line, for a shell, that a request stands for; it leaves corrections and boxes out."""
    words = ["sam2-fewshot", "segment", *map(str, request.images)]
    for name in (*_PATHS, "save_model", *_TEXTS, "model", "device"):
        value = getattr(request, name)
        if value is not None and value != "auto":
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += [word for tag in request.tags for word in ("--tag", tag)]
    words += ["--write", ",".join(request.write)] if request.write else []
    usual = Settings()
    for name in Settings.model_fields:
        value, option = getattr(request.settings, name), name.replace("_", "-")
        if isinstance(value, bool) and value != getattr(usual, name):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value != getattr(usual, name):
            words += [f"--{option}", str(value)]
    return command_line([*words, "-o", str(request.out)])


def check_request(request: Request) -> None:
    """Refuse a request that cannot be carried out, as far as that can be seen without reading its files.

    Raises
    ------
    InputError
        If the output folder cannot be written, an address has a secret in it, or there is not exactly one of examples
        and object model.
    """
    for path in request.images:
        check_address(path)
    _check_output(request.out)
    _check_source(request)


def _check_source(request: Request) -> None:
    """Refuse a request that does not give exactly one of examples and object model, and what fits to it."""
    if request.object_model is None:
        if request.examples is None:
            raise InputError(
                "There is nothing to learn from: give marked objects with --examples, or what was learned from some "
                "before with --object-model."
            )
    elif request.examples is not None:
        raise InputError(
            "Both --examples and --object-model were given, but it is the one or the other: an object model is what "
            "was learned from examples before."
        )
    elif request.corrections:
        raise InputError(
            f"These results were made with the object model {request.object_model}, and corrections can only be "
            "learned from together with the examples; give these with --examples, and with --training-tag, "
            "--negative-tag, --boxes and --channels as they were given when it was learned."
        )
    elif request.save_model is not None:
        raise InputError(
            f"--save-model has nothing to save: with an object model nothing is learned, and {request.object_model} is "
            "there already."
        )
    elif request.training_tag is not None or request.negative_tag is not None:
        raise InputError(
            "Tags choose among examples, and with --object-model there are none; leave out --training-tag and "
            "--negative-tag. --tag names what is found."
        )
    elif request.boxes or request.examples_on is not None:
        option = "--boxes" if request.boxes else "--examples-on"
        raise InputError(f"{option} is about examples, and with --object-model there are none; leave it out.")
    if request.save_model is not None:
        _check_target(request.save_model)
        _check_output(request.save_model.parent, "object model", "--save-model")


def _check_output(out: Path, what: str = "results", option: str = "-o") -> None:
    """Refuse an output folder that cannot be written, without making it.

    Parameters
    ----------
    out
        The folder.
    what, option
        What shall go there, and which option says so.

    Raises
    ------
    InputError
        If it, or what it would lie in, is a file or may not be written.
    """
    existing = out
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        kind = "is a file" if existing.is_file() else "is not a folder"
        raise InputError(f"The {what} cannot go to {out}: {existing} {kind}. Give another folder with {option}.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(
            f"The {what} cannot go to {out}: {os.strerror(errno.EACCES).lower()} in {existing}. "
            f"Give another folder with {option}."
        )


def _check_target(path: Path) -> None:
    """Refuse a path that is not fit for an object model.

    Raises
    ------
    InputError
        If it is a folder's, does not end in ``.npz``, and may then be that of an image, or is that of other arrays.
    """
    if path.suffix.lower() != ".npz" or path.is_dir():
        raise InputError(
            f"The object model cannot be saved as {path}: give --save-model the name of a file that ends in .npz."
        )
    if path.exists():
        try:
            read_object_model(path)
        except InputError:
            raise InputError(
                f"{path} is there already and is no object model of this version; give --save-model another name."
            ) from None


def request_again(results: Path, out: Path | None = None) -> Request:
    """Return the request that an output folder was made by, with its corrections.

    Parameters
    ----------
    results
        The output folder.
    out
        Where the new results shall go; :func:`next_folder` when left out.

    Raises
    ------
    InputError
        If it is not an output folder, does not say what was asked for, or a file that it names cannot be looked for.
    SettingsError
        If its settings cannot be used by this version.
    """
    facts = read_finished(results).facts
    try:
        asked: Mapping[str, Any] = facts["request"]
        corrections = results / CORRECTIONS
        return Request(
            images=[_as_path(path) for path in asked["images"]],
            examples=_as_path(asked["examples"]) if asked["examples"] else None,
            object_model=_as_path(asked["object_model"]) if asked.get("object_model") else None,
            out=out or next_folder(results),
            channels=_as_path(asked["channels"]) if asked["channels"] else None,
            tags=[str(tag) for tag in asked["tags"]],
            model=str(asked["model"]),
            device=str(asked["device"]),
            settings=Settings.stored(facts["settings"]),
            corrections=[corrections] if corrections.exists() else [],
            earlier=results,
            write=[str(name) for name in asked["write"]],
            boxes=bool(asked.get("boxes", False)),
            examples_on=None if asked.get("examples_on") is None else as_named(str(asked["examples_on"])),
            save_model=None,  # it is saved already, and the new run may learn something else
            **{name: None if asked[name] is None else str(asked[name]) for name in _TEXTS},
        )
    except (LookupError, TypeError, ValueError):
        raise InputError(
            f"{results / 'run.json'} does not say which images and examples the results were made from; run "
            "sam2-fewshot segment again with this version."
        ) from None


def next_folder(results: Path) -> Path:
    """Return the folder for the results that follow: ``results-refined``, then ``results-refined-2``, and so on."""
    plain = Path(_absolute(results))
    numbered = re.fullmatch(r"(.+-refined)(?:-([0-9]{1,9}))?", plain.name)
    name = f"{numbered[1]}-{int(numbered[2] or 1) + 1}" if numbered else f"{plain.name}-refined"
    # The user reads the path, so it stays as short as it was given; `.` and `..` have no parent that is beside them.
    return plain.with_name(name) if results.name in ("", "..") else results.parent / name


def _as_path(text: str) -> Path:
    """Return a path that ``run.json`` holds, where stray bytes of names are spelt out."""
    path = Path(text)
    with reading(path):
        return path if path.exists() else Path(as_named(text))


def _absolute(path: Path) -> str:
    return remote(path) or os.path.normpath(path.absolute())
