"""How much memory is allowed, and what follows from it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from random_networks import random_network
from sam2_fewshot import FewShotSegmenter, Frame, Settings
from sam2_fewshot.backbones.sam2 import expected_bytes, open_model
from sam2_fewshot.backbones.sam2.checkpoints import TINY
from sam2_fewshot.backbones.sam2.network import Sam2Model
from sam2_fewshot.images.image_set import open_images
from sam2_fewshot.object_model import ObjectModel
from sam2_fewshot.protocols import Gates
from sam2_fewshot.records import held_bytes
from sam2_fewshot.resources import (
    BYTES_PER_PIXEL,
    LEARNING_BYTES_PER_PIXEL,
    RESERVE,
    STORED,
    THREAD,
    allowed_memory,
    block_pixels,
    budget,
    cores,
    memory_of,
    reserve,
    share_cores,
    threads,
    tiles_at_a_time,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sam2_fewshot.records import FrameReader

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


@pytest.mark.parametrize(("works", "memory"), [(1, 32 * GIB), (0, 8 * GIB)])
def test_windows_tells_it_through_a_library(tmp_path: Path, works: int, memory: int) -> None:
    class Library:
        def GlobalMemoryStatusEx(self, status: Any) -> int:
            assert (len(bytes(status)), status[0]) == (64, 64)
            status[1] = 32 * GIB
            return works

    assert allowed_memory(tmp_path, Library()) == memory


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"sys/fs/cgroup/cpu.max": "max 100000\n"},
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
        {"sys/fs/cgroup/cpu.max": "6400000 100000\n"},
    ],
)
def test_without_a_limit_of_time_all_cores_are_used(tmp_path: Path, files: dict[str, str]) -> None:
    assert cores(machine(tmp_path, **files)) == cores(tmp_path / "nothing")


@pytest.mark.parametrize(
    "files",
    [
        {"sys/fs/cgroup/cpu.max": "100000 100000\n"},
        {"sys/fs/cgroup/cpu.max": "20000 100000\n"},
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/cpu.max": "50000 50000",
            "sys/fs/cgroup/a/b/cpu.max": "max 1",
        },
        {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/x\n",
            "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "90000",
            "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
        },
    ],
)
def test_a_container_may_have_the_time_of_one_core(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert cores(machine(tmp_path, **files)) == 1


def test_pytorch_is_told_of_a_containers_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts the machine's cores, and sixty threads would wait for the time of two."""
    for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    share_cores(tmp_path / "nothing")
    assert "OMP_NUM_THREADS" not in os.environ
    container = machine(tmp_path, **{"sys/fs/cgroup/cpu.max": "150000 100000\n"})
    share_cores(container)
    assert os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    share_cores(container)
    assert os.environ["OMP_NUM_THREADS"] == "5"  # what the user has set


def test_half_of_what_is_allowed_may_be_taken_where_nothing_is_set() -> None:
    assert budget(0, allowed=6_000_000_000) == 3_000_000_000
    assert budget(0) == allowed_memory() // 2
    assert budget(3, allowed=6_000_000_000) == budget(3) == 3_000_000_000


def test_blocks_follow_from_the_memory() -> None:
    assert block_pixels(100) == 4096**2
    assert block_pixels(100, 910) == 9100**2
    assert block_pixels(3) == (3_000_000_000 - reserve()) // BYTES_PER_PIXEL
    assert block_pixels(0.5) == 1
    assert block_pixels(3, 100, tile_bytes=10_000 * BYTES_PER_PIXEL) == block_pixels(3) // 2
    assert memory_of(block_pixels(3)) == pytest.approx(3)
    assert memory_of(10**6, 100, False, 2 * 10**6, 10**9) - memory_of(0) == pytest.approx(
        1 + (BYTES_PER_PIXEL + 200) / 1000
    )


def test_threads_take_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert reserve() == RESERVE
    one = block_pixels(3)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert reserve() - RESERVE == THREAD * (threads() - 1)
    assert one - block_pixels(3) == pytest.approx((threads() - 1) * THREAD / BYTES_PER_PIXEL, abs=1)
    assert block_pixels(0) >= 1


def model_like(name: str, device: str = "cpu") -> Sam2Model:
    """A network of a known size with random weights."""
    gates = Gates(0.0, 0.0)
    return Sam2Model(random_network(name), name=name, sha256="0" * 64, gates=gates, device=torch.device(device))


def blocks_of(segmenter: FewShotSegmenter, frame: FrameReader) -> int:
    """In how many blocks a segmenter searches a frame for small objects."""
    objects = ObjectModel(
        "grid", {}, np.array([100]), [], segmenter.model_name, segmenter.model_sha256, target_occupancy=0.2, max_zoom=8
    )
    return len(segmenter.adopt(objects).plan(frame).blocks)


def test_larger_models_leave_less_for_the_frame(micro: Sam2Model) -> None:
    assert micro.extra_bytes == 0
    tiny = model_like("tiny")
    # Measured, the interpreter and torch included, without the tiles that learning holds: 2.2 GB.
    assert RESERVE - STORED + tiny.extra_bytes == pytest.approx(2.3e9, rel=0.05)
    assert block_pixels(4, beside=tiny.extra_bytes) < block_pixels(4) // 2
    frame, settings = Frame(np.zeros((1000, 1000, 3), np.uint8)), Settings(method="grid", max_memory=2.9)
    assert blocks_of(FewShotSegmenter(tiny, settings=settings), frame) > 1
    assert blocks_of(FewShotSegmenter(micro, settings=settings), frame) == 1


def test_what_a_model_will_take_is_known_before_it_is_opened(tmp_path: Path, micro: Sam2Model) -> None:
    meta, own = tmp_path / TINY.name, tmp_path / "own.pt"
    for path in (meta, own):
        with path.open("wb") as file:
            file.truncate(80_000_000)  # tiny's weights in half precision; takes no room
    assert expected_bytes("micro") == micro.extra_bytes
    assert expected_bytes(meta) == pytest.approx(model_like("tiny").extra_bytes, rel=0.001)
    assert expected_bytes(own) > 10**9, "it may have the input of Meta's models"
    own.with_suffix(".yaml").write_text("model: {_target_: sam2.modeling.sam2_base.SAM2Base, image_size: 512}")
    assert expected_bytes(own) < 80_000_000


def test_learning_leaves_room_for_the_embeddings_that_it_holds(micro: Sam2Model) -> None:
    tiny, frame = model_like("tiny"), Frame(np.zeros((4000, 4000, 3), np.uint8))

    def with_memory(model: Sam2Model, gigabytes: float, method: str = "guided") -> FewShotSegmenter:
        return FewShotSegmenter(model, settings=Settings(max_memory=gigabytes, method=method))

    least = with_memory(tiny, 4).memory.least_for_learning()
    tiles = []
    for gigabytes in (least + 0.1, 4, 5):
        segmenter = with_memory(tiny, gigabytes)
        tiles.append(segmenter.memory.learning_tiles)
        pixels = 4 * segmenter.memory.part_size(frame)  # a part is a quarter of what fits
        taken = reserve() + tiny.extra_bytes + tiles[-1] * tiny.embedding_bytes + pixels * LEARNING_BYTES_PER_PIXEL
        assert pixels > 2e5
        assert taken < gigabytes * 1e9 + 64 * micro.embedding_bytes  # those are part of the reserve
    assert tiles[0] < tiles[1] < tiles[2] == with_memory(tiny, 50).memory.learning_tiles
    assert with_memory(tiny, 4, "grid").memory.least_for_learning() < least
    # The embedded checkpoint learns from as much as ever.
    assert with_memory(micro, 0).memory.learning_tiles == with_memory(micro, 1.5).memory.learning_tiles == tiles[2]
    of_each = [with_memory(micro, 2, method).memory.least_for_learning() for method in ("guided", "grid")]
    assert of_each[0] == of_each[1]


def test_batches_are_part_of_the_memory() -> None:
    tiny = model_like("tiny")
    before = tiny.extra_bytes
    tiny.batch_size = 8
    assert tiny.extra_bytes > before + 5 * 10**9
    tiny.points_per_batch *= 2
    assert tiny.extra_bytes > before + 6 * 10**9


def test_an_apple_gpu_takes_the_computers_memory() -> None:
    tiny = model_like("tiny")
    on_cpu = tiny.extra_bytes
    tiny.device, tiny.batch_size, tiny.points_per_batch = torch.device("mps"), 32, 512  # as such a GPU begins
    assert tiny.extra_bytes > 10 * on_cpu
    tiny.keep_within(Settings(max_memory=16, batch_size=3, points_per_batch=100))
    assert (tiny.batch_size, tiny.points_per_batch) == (32, 512), "what the user chose stays"
    tiny.keep_within(Settings(max_memory=16))
    assert tiny.extra_bytes < 5 * 10**9
    tiny.device, tiny.batch_size, tiny.most_tiles = torch.device("cuda"), 32, 1000
    tiny.keep_within(Settings(max_memory=16))
    assert (tiny.batch_size, tiny.most_tiles) == (32, 1000), "it has memory of its own"
    assert tiny.extra_bytes < on_cpu


def test_a_batch_of_tiles_follows_from_the_memory(micro: Sam2Model) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    (tile,) = micro.tiles(picture, [(0, 0, 64, 64)])
    assert micro.tile_bytes == tile.level_bytes
    assert tiles_at_a_time(8, 200_000_000) == 5
    assert tiles_at_a_time(0.1, 200_000_000) == 1
    opened = open_model("micro", "cpu", Settings(max_memory=0.2, batch_size=8))
    assert opened.most_tiles == 2
    batches: list[int] = []
    list(opened.tiles(picture, [(0, 0, 64, 64)] * 5, batches.append))
    assert batches == [2, 2, 1]


def test_what_a_file_has_to_be_read_whole_for_is_part_of_the_memory(tmp_path: Path, micro: Sam2Model) -> None:
    picture = np.zeros((600, 700), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", picture, tile=(64, 64))
    whole, by_region = open_images([tmp_path / "a.png", tmp_path / "b.tif"], Settings(), whole_plane=1000)
    assert held_bytes(whole.frame()) == 3 * 600 * 700
    assert held_bytes(by_region.frame()) == 0
    assert held_bytes(Frame(picture)) == 0
    settings = Settings(method="grid", max_memory=(reserve() + (600 * 700 + 1) * BYTES_PER_PIXEL) / 1e9)
    segmenter = FewShotSegmenter(micro, settings=settings)
    assert blocks_of(segmenter, whole.frame()) > 1
    assert blocks_of(segmenter, by_region.frame()) == 1
