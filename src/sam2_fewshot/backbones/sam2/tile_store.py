"""Levels of tiles that were encoded before, by all that they depend on.

An encoder pass of Meta's checkpoints takes seconds on a CPU, and the same tiles come again: when an image with examples
is searched after it was learned from, and when a run is done again with other settings. What comes from a store is what
the encoder gave, bit by bit and in the same layout in memory, on which the last bits of later sums depend.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from sam2_fewshot.backbones.sam2.device import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from sam2_fewshot.protocols import TileStore

    Levels = tuple[Tensor, Tensor, Tensor]

_NAMES = ("coarse", "fine", "middle")
_LAST = "_last"
"""Ends the name of an array that lies in memory with its channels last, (h, w, C); others are (C, h, w)."""


class Encoding(Protocol):
    """What an embedding depends on besides the tile."""

    sha256: str
    input_size: int
    device: torch.device
    dtype: torch.dtype
    store: TileStore | None


def stored_or_encoded(model: Encoding, crops: Sequence[Tensor], encode: Callable[[], Levels]) -> Levels:
    """Return the encoder's levels of a batch of tiles, from the model's store or by encoding them.

    Parameters
    ----------
    model
        Whose store it is; without one the tiles are encoded.
    crops
        The tiles, uint8 RGB (3, h, w) each, before they are resized.
    encode
        Encodes all of them.

    Returns
    -------
    tuple of Tensor
        Coarse, fine and middle level, (N, C, h, w) each.
    """
    store = model.store
    if store is None:
        return encode()
    keys = tile_keys(model, crops)
    found = [store.get(key) for key in keys]
    if all(arrays is not None for arrays in found):
        parts = [_unpacked(arrays, model.device) for arrays in found if arrays is not None]
        coarse, fine, middle = (_together([part[n] for part in parts]) for n in range(3))
        return coarse, fine, middle
    # All of the batch is encoded: the last bits of an embedding may depend on how many are encoded with it.
    levels = encode()
    for number, (key, arrays) in enumerate(zip(keys, found, strict=True)):
        if arrays is None:
            store.put(key, _packed([level[number] for level in levels]))
    return levels


def tile_keys(model: Encoding, crops: Sequence[Tensor], code: str = "") -> list[str]:
    """Return 64 hexadecimal digits for each tile, which change with anything that its embedding depends on.

    Parameters
    ----------
    model, crops
        As in :func:`stored_or_encoded`.
    code
        Hash of the code that encodes; that of this room when left out.
    """
    facts = [
        code or _code(),
        model.sha256,
        model.input_size,
        str(model.dtype),
        describe(model.device),
        torch.backends.cpu.get_cpu_capability() if model.device.type == "cpu" else "",
        len(crops),
    ]
    start = hashlib.blake2b(json.dumps(facts).encode(), digest_size=32)
    keys = []
    for crop in crops:
        digest = start.copy()
        digest.update(repr(tuple(crop.shape)).encode())
        digest.update(crop.contiguous().cpu().numpy().data)
        keys.append(digest.hexdigest())
    return keys


@cache
def _code() -> str:
    """Return a hash of this room's code and the versions of what it calls."""
    digest = hashlib.sha256(torch.__version__.encode())
    try:
        digest.update(version("rf-sam-2").encode())
    except PackageNotFoundError:
        digest.update(b"another sam2")
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _packed(levels: Sequence[Tensor]) -> dict[str, NDArray[Any]]:
    """Return one tile's levels as arrays; NumPy knows no bfloat16, so its bits are stored as int16."""
    arrays = {}
    for name, level in zip(_NAMES, levels, strict=True):
        plain = level.view(torch.int16) if level.dtype == torch.bfloat16 else level
        if not plain.is_contiguous():
            name, plain = name + _LAST, plain.permute(1, 2, 0)
        arrays[name] = plain.contiguous().cpu().numpy()
    return arrays


def _unpacked(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> list[Tensor]:
    levels = []
    for name in _NAMES:
        is_plain = name in arrays
        level = torch.from_numpy(arrays[name if is_plain else name + _LAST]).to(device)
        if level.dtype == torch.int16:
            level = level.view(torch.bfloat16)
        levels.append(level if is_plain else level.permute(2, 0, 1))
    return levels


def _together(levels: Sequence[Tensor]) -> Tensor:
    """Put tiles into a batch in the layout that they have."""
    if levels[0].is_contiguous():
        return torch.stack(list(levels))
    return torch.stack([level.permute(1, 2, 0) for level in levels]).permute(0, 3, 1, 2)
