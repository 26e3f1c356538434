"""Where an image lies: a file, a folder, or an address on the web or in an object store.

Images are passed around as :class:`~pathlib.Path`. A path keeps an address but for one slash: ``http://host/a.zarr``
becomes ``http:/host/a.zarr``, from which :func:`remote` gives the address again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_ADDRESS = re.compile(r"(https?|s3):/+(.+)")
_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


def remote(path: Path | str) -> str | None:
    """Return the address that a path stands for, None when it is a file or folder."""
    match = _ADDRESS.fullmatch(path if isinstance(path, str) else path.as_posix())
    return f"{match[1]}://{match[2]}" if match else None


def holds_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr group or array."""
    return any((path / name).is_file() for name in _ZARR_FILES)


def is_zarr(path: Path) -> bool:
    """Tell whether a path is taken for an OME-Zarr: a folder that is one, or any address."""
    if remote(path) is not None:
        return True
    try:
        return path.is_dir() and holds_zarr(path)
    except (OSError, ValueError):  # no possible name, which whoever opens it will say
        return False
