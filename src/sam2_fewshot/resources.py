"""What this process may use of the computer: its cores, for work side by side, and its memory, for frames and tiles."""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 4
"""With more threads, what holds Python's lock takes over, and each needs memory of its own."""
_AHEAD = 3
"""So many pieces a thread are begun before the first is taken, since some take much longer than others."""


def cores(root: Path = Path("/")) -> int:
    """Return the number of processor cores that this process may use, fewer where a container has less time.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(here, _processor_quota(root)))


def threads() -> int:
    """Return how many pieces are worked on at a time: one for each core this process may use, up to four.

    ``OMP_NUM_THREADS`` limits them as it limits PyTorch's threads.
    """
    return min(threads_each(), _MOST)


def threads_each(processes: int = 1) -> int:
    """Return how many threads each of so many processes may have: its part of the cores that this one may use.

    ``OMP_NUM_THREADS`` limits them.
    """
    share, limit = cores() // processes, os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(share, int(limit) if limit.isdecimal() else share))


def share_cores(root: Path = Path("/")) -> None:
    """Let PyTorch take no more cores than there are for it; call it before PyTorch is loaded.

    PyTorch takes as many threads as the machine has cores, also in a container that may use the time of a few: then
    most of its threads wait, and the rest for them. And GNU's OpenMP looks 300,000 times whether the other threads are
    done before one sleeps. Where another program wants the same cores, they cannot be done: the sample took 54 to 68 s
    on two cores with two other programs, and 33 to 35 s so; without these 14 s either way. What the user has set is
    left as it is.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are.
    """
    if _processor_quota(root) < _NO_QUOTA:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores(root)))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def mapped(work: Callable[[Item], Result], items: Iterable[Item], count: int | None = None) -> Iterator[Result]:
    """Apply a function to items in several threads; NumPy and SciPy let go of Python's lock in most of their work.

    Parameters
    ----------
    work
        Changes nothing that another piece of work reads.
    items
        Are taken as they are needed.
    count
        How many are worked on at a time; :func:`threads` when left out.

    Yields
    ------
    Result
        In the order of the items, whichever is done first. Few are held at a time.
    """
    count = count or threads()
    if count == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(count) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(work, item))
                if len(begun) > count * _AHEAD:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()


BYTES_PER_PIXEL = 300
"""Memory that a search takes for a pixel of the block: its picture, the maps, and the masks of the candidates. Measured
with the guided method and the embedded checkpoint: 54 to 95 where objects of 40 px are sparse
(``benchmarks/large.py``). Where objects of 20 px lie side by side, with 20,000 candidates a megapixel, all of the
program took 1.16 GB for .5 and 1.75 GB for 1.9 megapixels at a time, what is held of the tiles included."""
LEARNING_BYTES_PER_PIXEL = 260
"""The same for learning, for which 140 were measured."""
STORED = 360_000_000
"""Bytes of encoded tiles that learning holds, so as not to encode them twice: 64 of the embedded checkpoint's."""
_EMBEDDING = 2_100_000
"""Bytes of an embedding of the embedded checkpoint; those that learning holds are part of what was measured."""
FEWEST_EMBEDDINGS = 12
"""Learning holds those of so many tiles at least: of windows around ten examples, and of few others."""
RESERVE = 1_250_000_000
"""Bytes of the interpreter, torch and the embedded checkpoint, with a batch of tiles at work; 1.0 GB measured. The
rest, and what learning takes less for a pixel than is reckoned, is for :data:`STORED`."""
THREAD = 120_000_000
"""Bytes that each thread after the first takes besides."""
_TILES_SHARE = 8
"""A batch of tiles may take this part of the memory, and so may those that learning holds."""
_SMALL_FRAME = 24
"""So many tiles cover a frame of 1024 × 1344 pixels with objects of 25 pixels."""
_BLOCK, _BLOCK_STEPS = 1 << 24, 10
"""A block of 4,096 × 4,096 pixels, or of ten steps each way where objects are large, gains little by being larger,
since its halo is a small part of it by then."""
_NO_QUOTA = 1 << 30
_UNKNOWN = 8 << 30
"""Bytes of a small machine, which is assumed where the system does not tell."""


def allowed_memory(root: Path = Path("/"), windows: Any = None) -> int:
    """Return how many bytes this process may use: the machine's memory, or less where a container or job has less.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are.
    windows
        The library that tells it on Windows; that of this system when left out.
    """
    limits = [_physical(root, windows)]
    for folder in _control_groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return min(limit for limit in limits if limit > 0)


def budget(max_memory: float, allowed: int | None = None) -> int:
    """Return how many bytes a search or learning may take in all.

    Parameters
    ----------
    max_memory
        In GB (10⁹ bytes); 0 is half of what is allowed.
    allowed
        Bytes that are allowed; :func:`allowed_memory` when left out.
    """
    return int(max_memory * 1e9) or (allowed_memory() if allowed is None else allowed) // 2


def tiles_at_a_time(max_memory: float, bytes_each: int) -> int:
    """Return how many tiles, or other pieces of a batch, may be worked on at a time, at least 1.

    Parameters
    ----------
    max_memory
        As in :func:`budget`.
    bytes_each
        Memory of one, as of a tile's feature pyramid.
    """
    return max(1, budget(max_memory) // _TILES_SHARE // bytes_each)


def room_for_tiles(max_memory: float) -> int:
    """Return how many bytes of encoded tiles learning may hold on a CPU; see :data:`STORED`.

    Parameters
    ----------
    max_memory
        As in :func:`budget`. Larger checkpoints' tiles take ten times as much, and encoding them takes seconds.
    """
    return max(STORED, budget(max_memory) // _TILES_SHARE)


def room_after_learning(max_memory: float, embedding_bytes: int, beside: int) -> int:
    """Return how many bytes of encoded tiles are held on a CPU after learning, for the search of the same frames.

    Parameters
    ----------
    max_memory, beside
        As in :func:`block_pixels`.
    embedding_bytes
        Memory of an embedding; with its pyramid a tile takes 25 quarters of it.

    Returns
    -------
    int
        As much as a small frame's tiles take, and nothing where memory is short. It is not reckoned with: learning
        takes less than is reckoned for it, and a search that needs the memory lets the tiles go.
    """
    spare = budget(max_memory) - reserve() - beside
    return max(0, min(_SMALL_FRAME * embedding_bytes * 25 // 4, spare // _TILES_SHARE - STORED))


def embeddings_in_learning(max_memory: float, most: int, embedding_bytes: int, beside: int) -> int:
    """Return of how many tiles learning may hold the embeddings: `most`, or fewer where memory is short.

    Parameters
    ----------
    max_memory, beside
        As in :func:`block_pixels`. Of what is left, half is for them, but as much as :data:`FEWEST_EMBEDDINGS` take.
    most
        More gain nothing.
    embedding_bytes
        Memory of each.
    """
    each = bytes_of_embeddings(1, embedding_bytes)
    spare = LEARNING_BYTES_PER_PIXEL * block_pixels(max_memory, learning=True, beside=beside)
    return most if not each else min(most, max(FEWEST_EMBEDDINGS, spare // 2 // each))


def bytes_of_embeddings(count: int, embedding_bytes: int) -> int:
    """Return how many bytes so many embeddings take in learning, beyond those of the embedded checkpoint."""
    return count * max(0, embedding_bytes - _EMBEDDING)


def block_pixels(
    max_memory: float,
    step: int = 1,
    learning: bool = False,
    tile_bytes: int = 0,
    beside: int = 0,
) -> int:
    """Return how many pixels of a frame may be searched at a time.

    Parameters
    ----------
    max_memory
        As in :func:`budget`.
    step
        After so many pixels the method's tiles repeat.
    learning
        True for learning from a frame, which takes more.
    tile_bytes
        Memory of the embedding that is held of each tile besides, for prompts; the more the frame is magnified, the
        more tiles there are.
    beside
        What the backbone takes beyond :data:`RESERVE`, and the frame where it is held whole.
    """
    total = budget(max_memory)
    if learning:
        total -= room_for_tiles(max_memory) - STORED
    enough = max(_BLOCK, (_BLOCK_STEPS * step) ** 2)
    return max(1, min(enough, int((total - reserve() - beside) / _per_pixel(step, learning, tile_bytes))))


def reserve() -> int:
    """Return the bytes reckoned for all but frames: :data:`RESERVE`, and the threads after the first."""
    return RESERVE + (threads() - 1) * THREAD


def memory_of(pixels: int, step: int = 1, learning: bool = False, tile_bytes: int = 0, beside: int = 0) -> float:
    """Return how much memory is reckoned for so many pixels at a time, in GB; see :func:`block_pixels`."""
    return (reserve() + beside + pixels * _per_pixel(step, learning, tile_bytes)) / 1e9


def rounded_up(gigabytes: float) -> float:
    """Return the next tenth of a GB, so that whoever sets what a message says has enough."""
    return math.ceil(gigabytes * 10) / 10


def _per_pixel(step: int, learning: bool, tile_bytes: int) -> float:
    own = LEARNING_BYTES_PER_PIXEL if learning else BYTES_PER_PIXEL
    return own + (tile_bytes / step**2 if step > 1 else 0)


def _physical(root: Path, windows: Any) -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, AttributeError):
        return _windows_physical(windows)
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _UNKNOWN


def _windows_physical(library: Any) -> int:
    import ctypes

    # MEMORYSTATUSEX, 64 bytes: its own length and the load in the first eight, then ullTotalPhys and six more of eight.
    status = (ctypes.c_uint64 * 8)(64)
    known = (library or ctypes.windll.kernel32).GlobalMemoryStatusEx(status)  # type: ignore[attr-defined,unused-ignore]
    return int(status[1]) if known else _UNKNOWN


@cache
def _processor_quota(root: Path) -> int:
    """Return how many processors' time the process may take, as of ``docker --cpus``, rounded up.

    Version 2 of control groups gives microseconds and of how many they are in one file, version 1 in two.
    """
    quotas = [_NO_QUOTA]
    for folder in _control_groups(root, "cpu"):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with suppress(OSError, ValueError, ZeroDivisionError):
                quota, period = (int(part) for name in names for part in (folder / name).read_text().split())
                quotas.append(math.ceil(quota / period))
    return min(quota for quota in quotas if quota > 0)


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the process's control groups and of those above them, versions 2 and 1."""
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    first, second = f"sys/fs/cgroup/{controller}", "sys/fs/cgroup"
    places = [(second, "/"), (first, "/")]
    for line in lines:
        number, controllers, group = (*line.split(":", 2), "", "")[:3]
        if number == "0":
            places.append((second, group))
        elif controller in controllers.split(","):
            places.append((first, group))
    for base, group in places:
        folder = root / base / group.strip("/")
        for place in (folder, *folder.parents):
            yield place
            if place == root / base:
                break
