"""What ``run.json`` says about a run besides its frames."""

from __future__ import annotations

import platform
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from sam2_fewshot import __version__
from sam2_fewshot.backbones import CHECKPOINTS, sam2_distribution
from sam2_fewshot.files.request import as_facts

if TYPE_CHECKING:
    from sam2_fewshot.files.plan import Plan
    from sam2_fewshot.runner.tasks import Progressed
    from sam2_fewshot.segmenter import FewShotSegmenter

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-image", "shapely")


def facts_of(plan: Plan, segmenter: FewShotSegmenter, begun: datetime, progressed: Progressed) -> dict[str, object]:
    """Return versions, model, settings, the request and how the run went."""
    request = plan.request
    return {
        "program": "sam2-fewshot",
        "versions": {"sam2-fewshot": __version__, "python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "begun": begun.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": segmenter.model_name,
            "sha256": segmenter.model_sha256,
            "licence": _licence(segmenter.model_name),
        },
        "device": segmenter.device_name,
        "settings": request.settings.model_dump(mode="json"),
        "object_model": None if plan.saved is None else {"path": plan.saved.path, "sha256": plan.saved.sha256},
        "saved_model_path": request.save_model,
        "examples": len(plan.examples),
        "corrections": len(plan.corrections),
        "request": as_facts(request, segmenter.model_name),
        "learned": progressed.learned.summary if progressed.learned else "",
        "seconds": dict(progressed.seconds),
        "warnings": list(progressed.warnings),
        "failures": [f"{failure.what}: {failure.sentence}" for failure in progressed.failures],
    }


def _licence(model: str) -> str:
    return next((known.licence for known in CHECKPOINTS if known.name == model), "unknown")


def _versions() -> dict[str, str]:
    # Several distributions hold the package sam2, and results should name the one that made them.
    found = {"sam2": sam2_distribution()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
