"""NumPy archives of others: what is in them is looked at before it is unpacked, and again before it is used."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile
from zlib import error as DamagedStream

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import IO
    from zipfile import ZipInfo

    from numpy.typing import NDArray

MOST_BYTES = 500_000_000
"""The arrays of an archive may take so much together."""
_MEMBERS = 1000
DAMAGES = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    EOFError,
    BadZipFile,
    DamagedStream,
    RuntimeError,  # an archive with a password, or packed in a way that Python does not know
    MemoryError,
)
"""What reading a damaged archive may raise."""


class Unfit(ValueError):
    """An archive that does not hold what it should; the message says what of it, in a few words."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What an array must be like.

    Parameters
    ----------
    dtype
        Kind and bytes of its elements, such as ``f4``; ``U`` for a text of any length.
    shape
        Of each axis its length, or a name, optionally with a number to add (``features+4``): axes of the same name are
        of the same length, in all arrays of an archive.
    least, most
        Bounds of its values: one for all, or one for each along the last axis. Of texts, `most` is the longest.
    longest
        So many elements it may have.
    may_be_nan
        Whether values may be NaN.
    may_be_empty
        Whether it may be without elements.
    is_optional
        Whether it may be missing.
    """

    dtype: str
    shape: tuple[int | str, ...] = ()
    least: float | tuple[float, ...] = -1e15
    most: float | tuple[float, ...] = 1e15
    longest: int = 10**12
    may_be_nan: bool = False
    may_be_empty: bool = False
    is_optional: bool = False


class ArrayArchive:
    """The arrays of an ``.npz`` file, each unpacked once it is known to be of its layout.

    Parameters
    ----------
    content
        The file, or what it is opened as.
    most_bytes
        Its arrays may take so much together.

    Raises
    ------
    Unfit
        If it is no such file.
    """

    def __init__(self, content: bytes | IO[bytes], most_bytes: int = MOST_BYTES) -> None:
        self._left = most_bytes
        self._lengths: dict[str, int] = {}
        try:
            self._archive = ZipFile(io.BytesIO(content) if isinstance(content, bytes) else content)
        except DAMAGES as error:
            raise Unfit("it is no whole NumPy archive") from error
        members = self._archive.infolist()
        self._members = {member.filename.removesuffix(".npy"): member for member in members}
        if len(members) > _MEMBERS or len(members) != len(self._members):
            raise Unfit("it holds the same array twice, or too many")

    def take(self, layouts: Mapping[str, Layout]) -> dict[str, NDArray[Any]]:
        """Return the arrays that are asked for, by name.

        Raises
        ------
        Unfit
            If one is missing, damaged, or not of its layout.
        """
        found = {
            name: self._array(name, layout)
            for name, layout in layouts.items()
            if name in self._members or not layout.is_optional
        }
        return {name: found[name] for name in self._members if name in found}  # in the archive's order

    def is_whole(self, names: Collection[str]) -> bool:
        """Return whether these arrays are there and all check sums are right, without keeping what is unpacked."""
        size = sum(member.file_size for member in self._members.values())
        return self._members.keys() >= set(names) and size <= self._left and self._archive.testzip() is None

    def _array(self, name: str, layout: Layout) -> NDArray[Any]:
        member = self._members.get(name)
        if member is None:
            raise Unfit(f"the array {name} is missing")
        try:
            with self._archive.open(member) as file:
                array = self._read(name, layout, member, file)
        except Unfit:
            raise
        except DAMAGES as error:
            raise Unfit(f"the array {name} cannot be unpacked") from error
        _check_values(name, array, layout)
        return array

    def _read(self, name: str, layout: Layout, member: ZipInfo, file: IO[bytes]) -> NDArray[Any]:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_transposed, dtype = read_header(file)
        is_text = layout.dtype == "U"
        if (dtype.kind != "U" if is_text else dtype.newbyteorder("=") != np.dtype(layout.dtype)) or dtype.hasobject:
            raise Unfit(f"the array {name} is of {dtype}, and not of {'text' if is_text else np.dtype(layout.dtype)}")
        if is_text and dtype.itemsize > np.dtype("U1").itemsize * np.max(layout.most):
            raise Unfit(f"the array {name} holds texts that are too long")
        self._check_shape(name, shape, layout)
        count = math.prod(map(int, shape))
        size = count * dtype.itemsize
        if size > self._left or count > layout.longest:
            raise Unfit(f"the array {name} would take {size // 10**6:,} MB")
        # The archive says how long a member is, and no more of it is unpacked, so both are looked at before.
        if member.file_size - file.tell() != size:
            raise Unfit(f"the array {name} is not as long as its head says")
        self._left -= size
        array = np.frombuffer(file.read(size), dtype)
        if array.size != count or file.read(1):
            raise Unfit(f"the array {name} is not as long as its head says")
        return array.reshape(shape, order="F" if is_transposed else "C").astype(dtype.newbyteorder("="))

    def _check_shape(self, name: str, shape: tuple[int, ...], layout: Layout) -> None:
        wanted = [self._wanted(axis, length) for axis, length in zip(layout.shape, shape, strict=False)]
        if len(shape) != len(layout.shape) or list(shape) != wanted:
            listed = " × ".join(map(str, shape)) or "single"
            raise Unfit(f"the array {name} is {listed}, and not {' × '.join(map(str, layout.shape)) or 'single'}")

    def _wanted(self, axis: int | str, length: int) -> int:
        """Return how long an axis must be; where its name is new, its length is what the name stands for."""
        if isinstance(axis, int):
            return axis
        label, _, more = axis.partition("+")
        added = int(more or 0)
        return self._lengths.setdefault(label, max(length - added, 0)) + added


def _check_values(name: str, array: NDArray[Any], layout: Layout) -> None:
    if not array.size and not layout.may_be_empty:
        raise Unfit(f"the array {name} is empty")
    if array.dtype.kind == "U":
        return
    known = array[~np.isnan(array)] if layout.may_be_nan else array
    if not np.isfinite(known).all():
        raise Unfit(f"the array {name} holds what is no finite number")
    least, most = np.asarray(layout.least), np.asarray(layout.most)
    with np.errstate(invalid="ignore"):
        outside = (array < least) | (array > most)
    if outside.any():
        value = array[outside].ravel()[0]
        raise Unfit(f"the array {name} holds {value}, which makes no sense there")
