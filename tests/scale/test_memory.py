"""How much memory is allowed, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sam2_fewshot.model.memory import BYTES_PER_PIXEL, RESERVE, allowed_memory, block_pixels

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


def machine(root: Path, **files: str) -> Path:
    for name, content in {"proc/meminfo": f"MemTotal: {16 * GIB // 1024} kB\nMemFree: 1 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_the_machine_has_what_it_has(tmp_path: Path) -> None:
    assert allowed_memory(machine(tmp_path)) == 16 * GIB
    assert 10**8 < allowed_memory() < 10**15


@pytest.mark.parametrize(
    "files",
    [
        {"sys/fs/cgroup/memory.max": f"{4 * GIB}\n"},
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": str(4 * GIB),
            "sys/fs/cgroup/a/b/memory.max": "max",
        },
        {"sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 * GIB)},
        {
            "proc/self/cgroup": "5:cpu:/x\n4:memory:/job\nnonsense\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(4 * GIB),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
    ],
)
def test_a_container_or_job_may_have_less(tmp_path: Path, files: dict[str, str]) -> None:
    assert allowed_memory(machine(tmp_path, **files)) == 4 * GIB


def test_without_a_proc_folder_the_system_is_asked(tmp_path: Path) -> None:
    assert allowed_memory(tmp_path) > 10**8


def test_blocks_follow_from_the_memory() -> None:
    assert block_pixels(100) == 4096**2
    assert block_pixels(100, 910) == 9100**2
    assert block_pixels(3) == (3_000_000_000 - RESERVE) // BYTES_PER_PIXEL
    assert block_pixels(0, allowed=6_000_000_000) == block_pixels(3)
    assert block_pixels(0.5) == 1
    assert block_pixels(3, 100, tile_bytes=1_300_000) == block_pixels(3) // 2
    assert block_pixels(0) >= 1
