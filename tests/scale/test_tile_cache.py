"""Embeddings of tiles are kept, taken again only for the same, and change nothing."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scale_scenes import as_set, scene

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.backbones.sam2.loading import random_network
from sam2_fewshot.backbones.sam2.network import Sam2Model
from sam2_fewshot.backbones.sam2.tile_store import tile_keys
from sam2_fewshot.runner.opening import open_segmenter
from sam2_fewshot.storage.cache import OBJECTS, TILES, cache_folder, cached, shrink
from sam2_fewshot.storage.tile_cache import TileCache, tile_cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from scale_scenes import Heard

WINDOWS = [(0, 0, 96, 96), (60, 0, 156, 96), (0, 60, 96, 156)]
ARRAY = np.arange(1000, dtype=np.float32)
MEGABYTE = {"fine": np.zeros(250_000, np.float32)}


class InMemory:
    """A TileStore that counts."""

    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, NDArray[Any]]] = {}
        self.puts = self.hits = 0

    def get(self, key: str) -> Mapping[str, NDArray[Any]] | None:
        self.hits += key in self.kept
        return self.kept.get(key)

    def put(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.puts += 1
        self.kept[key] = arrays


@pytest.fixture
def model(micro: Sam2Model) -> Iterator[Sam2Model]:
    """The embedded model; it is everybody's, so it is left as it was."""
    before = micro.store, micro.batch_size, micro.sha256, micro.dtype
    yield micro
    micro.store, micro.batch_size, micro.sha256, micro.dtype = before


def encoded(model: Sam2Model, picture: NDArray[np.uint8], windows: list[Any] = WINDOWS) -> list[list[torch.Tensor]]:
    return [
        [*tile.levels, tile.embedding.image_embed, *tile.embedding.high_res] for tile in model.tiles(picture, windows)
    ]


def same(a: list[list[torch.Tensor]], b: list[list[torch.Tensor]]) -> bool:
    return all(
        torch.equal(x, y) and x.stride() == y.stride() and x.dtype == y.dtype
        for one, other in zip(a, b, strict=True)
        for x, y in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_kept_tile_is_the_same_to_the_last_bit(
    batch: int, dtype: torch.dtype, model: Sam2Model, tmp_path: Path
) -> None:
    picture = scene(156, 12)
    model.batch_size, model.dtype = batch, dtype
    plain = encoded(model, picture)
    model.store = TileCache(tmp_path, 10**9)
    assert same(encoded(model, picture), plain)
    assert cached(tmp_path, TILES).entries == 3
    model.store = TileCache(tmp_path, 10**9)  # as a later run
    assert same(encoded(model, picture), plain)


def test_stored_tiles_are_not_encoded(micro: Sam2Model) -> None:
    passes: list[int] = []

    def counted(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        passes.append(len(images))
        return micro.encoder(images)

    facts = {"name": micro.name, "sha256": micro.sha256, "gates": micro.gates, "device": micro.device}
    model = Sam2Model(micro.network, **facts, encoder=counted)
    model.store = store = InMemory()
    encoded(model, scene(156, 12))
    encoded(model, scene(156, 12))
    assert passes == [1, 1, 1]
    assert (store.puts, store.hits) == (3, 3)


def test_a_batch_of_which_a_tile_is_missing_is_encoded_as_a_whole(model: Sam2Model) -> None:
    picture = scene(156, 12)
    model.batch_size = 3
    plain = encoded(model, picture)
    model.store = store = InMemory()
    encoded(model, picture)
    store.kept.popitem()
    assert same(encoded(model, picture), plain)
    assert store.puts == 4


@pytest.mark.parametrize("change", ["pixels", "size", "model", "precision", "batch"])
def test_anything_that_matters_makes_a_tile_anew(change: str, model: Sam2Model) -> None:
    picture, windows = scene(156, 12), WINDOWS[:2]
    model.store = store = InMemory()
    encoded(model, picture, windows)
    if change == "pixels":
        picture = picture.copy()
        picture[50, 80] ^= 1
    elif change == "size":
        windows = [(0, 0, 95, 95), (60, 0, 155, 95)]
    elif change == "model":
        model.sha256 = "0" * 64
    elif change == "precision":
        model.dtype = torch.bfloat16
    else:
        model.batch_size = 2
    encoded(model, picture, windows)
    assert store.hits == 0
    assert store.puts == 4


def test_other_code_makes_tiles_anew(micro: Sam2Model) -> None:
    tiles = [torch.zeros(3, 8, 8, dtype=torch.uint8)]
    assert tile_keys(micro, tiles) == tile_keys(micro, tiles)
    assert tile_keys(micro, tiles) != tile_keys(micro, tiles, code="another")


@pytest.mark.filterwarnings("ignore:. examples tell little:sam2_fewshot.errors.FewShotWarning")
def test_what_is_found_is_the_same_to_the_last_vertex(
    model: Sam2Model, discs: tuple[NDArray[np.uint8], NDArray[np.int32]]
) -> None:
    picture, labels = discs
    shown = [Exemplar(image=picture, mask=labels == number) for number in (2, 3)]
    settings = Settings(min_mask_area=10)

    def found() -> set[tuple[object, ...]]:
        segmenter = FewShotSegmenter(model, settings=settings)
        return as_set(segmenter.fit(shown).segment(picture))

    plain = found()
    assert plain
    model.store = store = InMemory()
    assert found() == plain  # made, and taken again where the examples' image is searched
    assert store.puts == len(store.kept)
    assert store.hits > 0
    assert found() == plain  # all taken


@pytest.mark.parametrize("damage", ["cut", "empty", "a bit", "other", "foreign"])
def test_a_damaged_tile_is_dropped_and_made_again(damage: str, tmp_path: Path) -> None:
    store = TileCache(tmp_path, 10**9)
    store.put("a", {"fine": ARRAY})
    store.put("b", {"fine": ARRAY + 1})
    path, other = tmp_path / "tiles" / "a.npz", tmp_path / "tiles" / "b.npz"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-300]
    elif damage == "empty":
        content = bytearray()
    elif damage == "a bit":
        content[content.index(ARRAY[500:510].tobytes())] ^= 1
    elif damage == "other":
        content = bytearray(other.read_bytes())
    else:
        with path.open("wb") as file:
            np.savez(file, fine=np.array([{}], object))
        content = bytearray(path.read_bytes())
    path.write_bytes(content)
    assert store.get("a") is None
    assert not path.exists()
    store.put("a", {"fine": ARRAY})
    kept = store.get("a")
    assert kept is not None
    assert np.array_equal(kept["fine"], ARRAY)


def aged(root: Path, *keys: str) -> None:
    """Make tiles look as if earlier runs had used them, the first the longest ago."""
    for number, key in enumerate(keys):
        os.utime(root / "tiles" / f"{key}.npz", (10**9 + number, 10**9 + number))


def test_the_longest_unused_gives_way(tmp_path: Path) -> None:
    earlier = TileCache(tmp_path, 4_200_000)
    for key in "abcd":
        earlier.put(key, MEGABYTE)
    aged(tmp_path, *"abcd")
    store = TileCache(tmp_path, 4_200_000)
    assert store.get("a") is not None  # used again
    store.put("e", MEGABYTE)
    assert {path.stem for path in (tmp_path / "tiles").iterdir()} == set("acde")


def test_a_run_over_more_tiles_than_there_is_room_for_keeps_the_first(tmp_path: Path) -> None:
    store = TileCache(tmp_path, 2_100_000)
    for key in "abcde":
        store.put(key, MEGABYTE)
    assert [key for key in "abcde" if store.get(key)] == ["a", "b"]
    assert cached(tmp_path, TILES).size <= 2_100_000


def test_a_tile_stamped_with_the_last_tick_of_the_clock_is_of_this_run(tmp_path: Path) -> None:
    store = TileCache(tmp_path, 1_100_000, clock=lambda: time.time_ns() + 10_000_000)
    for key in "ab":
        store.put(key, MEGABYTE)
    assert [key for key in "ab" if store.get(key)] == ["a"]


def test_a_clock_that_went_back_keeps_nothing_for_ever(tmp_path: Path) -> None:
    TileCache(tmp_path, 1_100_000).put("a", MEGABYTE)
    later = time.time() + 10**7
    os.utime(tmp_path / "tiles" / "a.npz", (later, later))
    store = TileCache(tmp_path, 1_100_000)
    store.put("b", MEGABYTE)
    assert store.get("a") is None
    assert store.get("b") is not None


def test_what_was_learned_is_kept_longer_than_tiles(tmp_path: Path) -> None:
    store = TileCache(tmp_path, 3_100_000)
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "learned.npz").write_bytes(bytes(1_000_000))
    aged_object = (10**9, 10**9)
    os.utime(tmp_path / "objects" / "learned.npz", aged_object)
    for key in "abc":
        store.put(key, MEGABYTE)
    assert cached(tmp_path, TILES).entries == 2
    shrink(tmp_path, 1_500_000)
    assert (cached(tmp_path, TILES).entries, cached(tmp_path, OBJECTS).entries) == (0, 1)


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = TileCache(tmp_path / "file", 10**9)
    store.put("a", MEGABYTE)
    assert store.get("a") is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_full_disk_stops_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = TileCache(tmp_path, 10**9)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
        store.put("a", MEGABYTE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "tiles").iterdir()) == []
    assert store.get("a") is None


def test_half_written_tiles_of_killed_programs_go(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for name in (".1-2-old.part", ".1-2-new.part"):
        (folder / name).write_bytes(b"1")
    os.utime(folder / ".1-2-old.part", (10**9, 10**9))
    TileCache(tmp_path, 10**9)
    assert [path.name for path in folder.iterdir()] == [".1-2-new.part"]


def test_many_may_use_it_at_once(tmp_path: Path) -> None:
    wrong: list[str] = []

    def use(seed: int) -> None:
        store = TileCache(tmp_path, 3_500_000)
        for number in np.random.default_rng(seed).integers(0, 5, 40):
            kept = store.get(str(number))
            if kept is None:
                store.put(str(number), {"fine": np.full(250_000, number, np.float32)})
            elif not (kept["fine"] == number).all():
                wrong.append(str(number))

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not list(tmp_path.glob("tiles/.*"))


def test_it_is_used_where_encoding_takes_much_longer_than_reading(model: Sam2Model, tmp_path: Path) -> None:
    large = Sam2Model(random_network("tiny"), name="tiny", sha256="", gates=model.gates, device=torch.device("cpu"))

    def used(model: Any, **settings: Any) -> bool:
        return tile_cache(model, Settings(**settings), tmp_path) is not None

    assert used(large)
    assert not used(model)  # 512 px
    assert used(model, cache_embeddings="on")
    assert not used(large, cache_embeddings="off")
    assert not used(large, cache_size=0)


def test_a_segmenter_by_name_has_the_cache_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    picture = scene(64, 3)
    for way, stored in (("auto", 0), ("on", 1)):
        segmenter = open_segmenter("sam2.1_hiera_micro.pt", "cpu", Settings(cache_embeddings=way), heard)
        segmenter.fit([Exemplar(image=picture, mask=picture[..., 0] > 100)])
        assert (cached(cache_folder(), TILES).entries > 0) is bool(stored)
