"""Mark a few objects in microscopy images and get every similar one.

Importing this package is quick: what needs torch is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2_fewshot.errors import CheckpointError as CheckpointError
    from sam2_fewshot.errors import FewShotError as FewShotError
    from sam2_fewshot.errors import FewShotWarning as FewShotWarning
    from sam2_fewshot.errors import InputError as InputError
    from sam2_fewshot.errors import ServerError as ServerError
    from sam2_fewshot.errors import SettingsError as SettingsError
    from sam2_fewshot.protocols import Progress as Progress
    from sam2_fewshot.records import Detection as Detection
    from sam2_fewshot.records import Exemplar as Exemplar
    from sam2_fewshot.records import Frame as Frame
    from sam2_fewshot.records import FrameReader as FrameReader
    from sam2_fewshot.records import FrameResult as FrameResult
    from sam2_fewshot.records import InstanceMask as InstanceMask
    from sam2_fewshot.records import Kind as Kind
    from sam2_fewshot.records import Location as Location
    from sam2_fewshot.segmenter import FewShotSegmenter as FewShotSegmenter
    from sam2_fewshot.settings import Settings as Settings

__version__ = "0.9.0"

_HOMES = {
    **dict.fromkeys(
        ("CheckpointError", "FewShotError", "FewShotWarning", "InputError", "ServerError", "SettingsError"),
        "errors",
    ),
    **dict.fromkeys(
        ("Detection", "Exemplar", "Frame", "FrameReader", "FrameResult", "InstanceMask", "Kind", "Location"), "records"
    ),
    "FewShotSegmenter": "segmenter",
    "Progress": "protocols",
    "Settings": "settings",
}

# Written out, because type checkers cannot reckon it.
__all__ = [
    "CheckpointError",
    "Detection",
    "Exemplar",
    "FewShotError",
    "FewShotSegmenter",
    "FewShotWarning",
    "Frame",
    "FrameReader",
    "FrameResult",
    "InputError",
    "InstanceMask",
    "Kind",
    "Location",
    "Progress",
    "ServerError",
    "Settings",
    "SettingsError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
