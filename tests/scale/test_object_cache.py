"""What was learned is kept, and taken again only for the same examples, weights and code."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scale_scenes import BrightSegmenter, scene
from shapely import box
from typer.testing import CliRunner

from sam2_fewshot import Exemplar, Frame, Settings
from sam2_fewshot.annotations.placing import PlacedExemplar
from sam2_fewshot.cli import app
from sam2_fewshot.runner import learning as object_cache
from sam2_fewshot.runner.learning import learn
from sam2_fewshot.runner.progress import Silent, Watch
from sam2_fewshot.storage.cache import OBJECTS, TILES, cache_folder, cached, clear, shrink
from sam2_fewshot.storage.tile_cache import TileCache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[[int], BrightSegmenter]


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, sentence: str) -> None:
        self.lines.append(sentence)


def examples(seed: int = 0, size: int = 20) -> list[PlacedExemplar]:
    frame = Frame(scene(80, 3, seed=seed))
    return [PlacedExemplar(Exemplar(image=frame, polygon=box(20, 20, 20 + size, 40)), ())]


@pytest.fixture
def watch() -> Watch:
    return Watch(Lines())


def test_the_same_examples_are_learned_once(bright: Make, watch: Watch, tmp_path: Path) -> None:
    first, second = bright(10**6), bright(10**6)
    assert not learn(first, examples(), watch, tmp_path)
    assert learn(second, examples(), watch, tmp_path)
    assert second.object_model.areas.tolist() == first.object_model.areas.tolist()
    assert cached(tmp_path, OBJECTS).entries == 1


@pytest.mark.parametrize("change", ["pixels", "outline", "settings", "code"])
def test_anything_that_matters_makes_it_learn_again(
    change: str, bright: Make, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(bright(10**6), examples(), watch, tmp_path)
    segmenter, shown = bright(10**6), examples()
    if change == "pixels":
        shown = examples(seed=1)
    elif change == "outline":
        shown = examples(size=21)
    elif change == "settings":
        segmenter.settings = segmenter.settings.changed({"min_mask_area": 31})
    else:
        monkeypatch.setattr(object_cache, "code_digest", lambda: "another")
    assert not learn(segmenter, shown, watch, tmp_path)


def test_settings_of_the_search_do_not(bright: Make, watch: Watch, tmp_path: Path) -> None:
    learn(bright(10**6), examples(), watch, tmp_path)
    segmenter = bright(10**6)
    segmenter.settings = segmenter.settings.changed({"similarity_threshold": 0.9, "smoothing": 0, "max_memory": 9})
    assert learn(segmenter, examples(), watch, tmp_path)


def test_what_was_warned_of_is_warned_of_again(bright: Make, tmp_path: Path) -> None:
    shown = [*examples(), PlacedExemplar(replace(examples()[0].exemplar, polygon=box(20, 20, 20.1, 20.1)), ())]
    heard = []
    for _ in range(2):
        lines = Lines()
        watch = Watch(lines)
        segmenter = bright(10**6)
        segmenter._progress._progress = watch  # type: ignore[assignment]
        learn(segmenter, shown, watch, tmp_path)
        heard.append(lines.lines)
    assert "Example 2 is left out" in heard[0][0]
    assert heard[0] == heard[1]


@pytest.mark.parametrize("damage", ["cut", "empty", "no warnings", "bad warnings"])
def test_a_damaged_entry_is_dropped_and_made_again(damage: str, bright: Make, watch: Watch, tmp_path: Path) -> None:
    learn(bright(10**6), examples(), watch, tmp_path)
    (entry,) = tmp_path.glob("objects/*.npz")
    if damage == "cut":
        entry.write_bytes(entry.read_bytes()[:200])
    elif damage == "empty":
        entry.write_bytes(b"")
    elif damage == "no warnings":
        entry.with_suffix(".json").unlink()
    else:
        entry.with_suffix(".json").write_text("{")
    assert not learn(bright(10**6), examples(), watch, tmp_path)
    assert learn(bright(10**6), examples(), watch, tmp_path)


def test_the_size_is_bounded_and_the_longest_unused_goes(bright: Make, watch: Watch, tmp_path: Path) -> None:
    for seed in range(3):
        learn(bright(10**6), examples(seed), watch, tmp_path)
    size = cached(tmp_path, OBJECTS).size
    learn(bright(10**6), examples(0), watch, tmp_path)  # used again
    shrink(tmp_path, size - 1)
    assert cached(tmp_path, OBJECTS).entries == 2
    assert learn(bright(10**6), examples(0), watch, tmp_path)
    assert not learn(bright(10**6), examples(1), watch, tmp_path)


def test_no_room_keeps_nothing(bright: Make, watch: Watch, tmp_path: Path) -> None:
    segmenter = bright(10**6)
    segmenter.settings = Settings(cache_size=0, method="grid")
    assert not learn(segmenter, examples(), watch, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_cache_that_cannot_be_written_stops_nothing(bright: Make, watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not learn(bright(10**6), examples(), watch, tmp_path / "file")


def test_many_may_use_it_at_once(bright: Make, watch: Watch, tmp_path: Path) -> None:
    segmenters = [bright(10**6) for _ in range(6)]
    threads = [
        threading.Thread(target=learn, args=(each, examples(number % 2), watch, tmp_path))
        for number, each in enumerate(segmenters)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(each.object_model.areas) == 1 for each in segmenters)
    assert cached(tmp_path, OBJECTS).entries == 2


def test_the_command_shows_and_empties_it(bright: Make, watch: Watch) -> None:
    root = cache_folder()
    for kind in (OBJECTS, TILES):
        clear(root, kind)
    learn(bright(10**6), examples(), watch, root)
    TileCache(root, 10**8).put("a", {"fine": np.zeros(10**6, np.float32)})
    half_written = root / "tiles" / ".1-2-b.part"
    half_written.write_bytes(b"1")
    told = CliRunner().invoke(app, ["cache", "info"])
    assert told.exit_code == 0
    assert f"{root / 'objects'}: 1 set of examples" in told.stdout
    assert f"{root / 'tiles'}: 1 embedding of a tile, 4.0 MB" in told.stdout
    emptied = CliRunner().invoke(app, ["cache", "clear"]).stdout
    assert "Deleted 1 set of examples" in emptied
    assert "Deleted 1 embedding of a tile, 4.0 MB" in emptied
    told = CliRunner().invoke(app, ["cache", "info"])
    assert "0 sets of examples, 0.0 MB" in told.stdout
    assert "0 embeddings of tiles, 0.0 MB" in told.stdout
    assert not half_written.exists()
