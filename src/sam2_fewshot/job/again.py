"""A request kept in ``run.json``, so that a job can be done again with a few things changed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam2_fewshot.errors import InputError
from sam2_fewshot.job.plan import Request
from sam2_fewshot.readers.places import remote
from sam2_fewshot.settings import Settings
from sam2_fewshot.writers.finished import read_finished

if TYPE_CHECKING:
    from collections.abc import Mapping

CORRECTIONS = "corrections.json"
"""Where an output folder keeps all corrections that its objects were learned from."""

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
        kept = results / CORRECTIONS
        return Request(
            images=[Path(path) for path in asked["images"]],
            examples=Path(asked["examples"]) if asked["examples"] else None,
            object_model=Path(asked["object_model"]) if asked.get("object_model") else None,
            out=out or next_folder(results),
            channels=Path(asked["channels"]) if asked["channels"] else None,
            tags=[str(tag) for tag in asked["tags"]],
            model=str(asked["model"]),
            device=str(asked["device"]),
            settings=Settings(**facts["settings"]),
            corrections=[kept] if kept.exists() else [],
            earlier=results,
            write=[str(name) for name in asked["write"]],
            save_model=None,  # it is saved already, and what follows may learn something else
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
    # The path is told to the user, so it stays as short as it was given.
    return results.parent / name if results.name else plain.with_name(name)


def _absolute(path: Path) -> str:
    return remote(path) or os.path.normpath(path.absolute())
