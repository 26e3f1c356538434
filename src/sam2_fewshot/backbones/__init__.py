"""The backbones: frozen networks that give feature pyramids and prompted masks, behind one protocol.

:class:`~sam2_fewshot.protocols.Backbone` is all that the rest of the program knows of them. A backbone is a module of
this package with ``open_model(name, device, settings)``, which returns one, and ``expected_bytes(name)``, which tells
how much memory it will take; and a line in :data:`_BACKBONES`. Names that are not there are names or paths of SAM 2's
checkpoints.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sam2_fewshot.backbones.sam2.checkpoints import (
    CHECKPOINTS,
    MICRO,
    as_path,
    available,
    find,
    resolve,
    search_folders,
)
from sam2_fewshot.backbones.sam2.device import present_devices
from sam2_fewshot.backbones.sam2.fetch import fetch
from sam2_fewshot.backbones.sam2.loading import sam2_distribution
from sam2_fewshot.errors import CheckpointError

if TYPE_CHECKING:
    from sam2_fewshot.protocols import Backbone
    from sam2_fewshot.settings import Settings

__all__ = [
    "CHECKPOINTS",
    "MICRO",
    "available",
    "expected_bytes",
    "fetch",
    "is_name",
    "lasting_name",
    "open_backbone",
    "present_devices",
    "resolve",
    "sam2_distribution",
    "search_folders",
]

_SAM2 = "sam2_fewshot.backbones.sam2"
_BACKBONES = {
    "filters": "sam2_fewshot.backbones.filters",
}
"""Modules by the name that opens them. They are imported when they are opened: torch takes seconds."""


def open_backbone(name: str | os.PathLike[str], device: str, settings: Settings) -> Backbone:
    """Open a backbone.

    Parameters
    ----------
    name
        A name of :data:`_BACKBONES`; or ``auto``, a name or the path of a SAM 2 checkpoint.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    settings
        Those of precision, batches and memory are used.

    Raises
    ------
    CheckpointError
        If there is no such backbone or checkpoint, or it cannot be used.
    SettingsError
        If there is no such device, or the backbone cannot compute on it or in the precision.
    """
    opened: Backbone = _module(name).open_model(name, device, settings)
    return opened


def expected_bytes(name: str | os.PathLike[str]) -> int:
    """Return about what a backbone's ``extra_bytes`` will be on a CPU, before it is opened.

    Raises
    ------
    CheckpointError
        If there is no such backbone or checkpoint.
    """
    expected: int = _module(name).expected_bytes(name)
    return expected


def is_name(name: str) -> bool:
    """Return whether a name alone means a backbone: one that is known, or the file of a checkpoint that is there.

    Raises
    ------
    CheckpointError
        If the environment names a folder with checkpoints that does not exist.
    """
    search_folders()  # a folder that the environment names and that is not there is told as such
    if name in _BACKBONES or find(name) is not None:
        return True
    try:
        resolve(name)
    except CheckpointError:
        return False
    return True


def lasting_name(name: str | os.PathLike[str]) -> str:
    """Return what means the same backbone in whatever folder the program runs: a path is made absolute.

    Raises
    ------
    CheckpointError
        If the environment names a folder with checkpoints that does not exist.
    """
    path = None if os.fspath(name) in _BACKBONES else as_path(name)
    return os.fspath(name) if path is None else os.path.normpath(path.absolute())


def _module(name: str | os.PathLike[str]) -> Any:
    return import_module(_BACKBONES.get(os.fspath(name), _SAM2))
