"""The request of a run on files, and the request that an output folder was made by."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import InputError
from sam2_fewshot.files.corrections import CORRECTIONS
from sam2_fewshot.images.addresses import remote
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Request:
    """What a user asks for.

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
        Folder with results whose finished frames are taken over where they would come out the same.
    write
        Names of further result files, of :data:`~sam2_fewshot.annotations.registry.ON_REQUEST`.
    object_model
        File with what was learned before, instead of examples.
    save_model
        Where to save what is learned; None for nowhere.
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

    @property
    def output_tags(self) -> list[str]:
        """The tags that the detections get."""
        return list(self.tags) or [self.training_tag or "object"]


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
        "examples": _absolute(request.examples) if request.examples else None,
        "object_model": _absolute(request.object_model) if request.object_model else None,
        "channels": _absolute(request.channels) if request.channels else None,
        "tags": list(request.tags),
        "write": list(request.write),
        "model": model if request.model == "auto" else str(request.model),
        "device": request.device,
        **{name: getattr(request, name) for name in _TEXTS},
    }


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
        If it is not an output folder, or does not say what was asked for.
    SettingsError
        If its settings cannot be used by this version.
    """
    facts = read_finished(results).facts
    try:
        asked: Mapping[str, Any] = facts["request"]
        corrections = results / CORRECTIONS
        return Request(
            images=[Path(path) for path in asked["images"]],
            examples=Path(asked["examples"]) if asked["examples"] else None,
            object_model=Path(asked["object_model"]) if asked.get("object_model") else None,
            out=out or next_folder(results),
            channels=Path(asked["channels"]) if asked["channels"] else None,
            tags=[str(tag) for tag in asked["tags"]],
            model=str(asked["model"]),
            device=str(asked["device"]),
            settings=Settings.stored(facts["settings"]),
            corrections=[corrections] if corrections.exists() else [],
            earlier=results,
            write=[str(name) for name in asked["write"]],
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
    # The user reads the path, so it stays as short as it was given.
    return results.parent / name if results.name else plain.with_name(name)


def _absolute(path: Path) -> str:
    return remote(path) or os.path.normpath(path.absolute())
