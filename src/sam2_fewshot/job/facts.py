"""What ``run.json`` says about a run as a whole."""

from __future__ import annotations

import platform
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from sam2_fewshot import __version__
from sam2_fewshot.job.again import as_facts
from sam2_fewshot.model.building import sam2_distribution
from sam2_fewshot.model.registry import CHECKPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sam2_fewshot.job.engine import Engine
    from sam2_fewshot.job.plan import Plan

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-image", "shapely")


def facts_of(
    plan: Plan,
    engine: Engine,
    begun: datetime,
    seconds: Mapping[str, float],
    warnings: Sequence[str],
    failures: Sequence[str],
) -> dict[str, object]:
    """Return what is written about a run besides its frames: versions, model, settings and the request."""
    request = plan.request
    return {
        "program": "sam2-fewshot",
        "versions": {"sam2-fewshot": __version__, "python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "begun": begun.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": engine.model_name,
            "sha256": engine.model_sha256,
            "licence": _licence(engine.model_name),
        },
        "device": engine.device_name,
        "settings": request.settings.model_dump(mode="json"),
        "examples_path": request.examples,
        "object_model": None if plan.saved is None else {"path": plan.saved.path, "sha256": plan.saved.sha256},
        "saved_model_path": request.save_model,
        "channels_path": request.channels,
        "batch_xy": request.batch_xy,
        "batch_z": request.batch_z,
        "batch_time": request.batch_time,
        "training_tag": request.training_tag,
        "negative_tag": request.negative_tag,
        "examples": len(plan.examples),
        "corrections": len(plan.corrections),
        "request": as_facts(request, engine.model_name),
        "seconds": dict(seconds),
        "warnings": list(warnings),
        "failures": list(failures),
    }


def _licence(model: str) -> str:
    return next((known.licence for known in CHECKPOINTS if known.name == model), "unknown")


def _versions() -> dict[str, str]:
    # Several distributions hold the package sam2, and results should tell which one made them.
    found = {"sam2": sam2_distribution()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
