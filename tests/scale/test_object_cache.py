"""What was learned is kept, and taken again only for the same examples, weights and code."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image
from scale_scenes import BRIGHT, bright_segmenter, scene
from shapely import box
from typer.testing import CliRunner

from bright import BrightMaker, BrightMethod, BrightSegmenter
from sam2_fewshot import Exemplar, Frame
from sam2_fewshot.cli import app
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.request import Request
from sam2_fewshot.files.run import run
from sam2_fewshot.rendering.channels import as_reader
from sam2_fewshot.runner.progress import Silent, Watch
from sam2_fewshot.runner.run import learn, learning_key
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.cache import FolderCache, cache_folder, cached, clear, warnings_in, with_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Make = Callable[..., BrightSegmenter]


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, sentence: str) -> None:
        self.lines.append(sentence)


def examples(seed: int = 0, size: int = 20) -> list[Exemplar]:
    return [Exemplar(image=Frame(scene(80, 3, seed=seed)), polygon=box(20, 20, 20 + size, 40))]


class InMemory:
    """A ModelCache that loses nothing."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[bytes, Sequence[str]]] = {}

    def get(self, key: str) -> tuple[bytes, Sequence[str]] | None:
        return self.entries.get(key)

    def put(self, key: str, content: bytes, warnings: Sequence[str]) -> None:
        self.entries[key] = content, list(warnings)


@pytest.fixture
def watch() -> Watch:
    return Watch(Lines())


@pytest.fixture
def folder(tmp_path: Path) -> FolderCache:
    return FolderCache(tmp_path, 10**9)


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_the_same_examples_are_learned_once(kind: str, bright: Make, watch: Watch, tmp_path: Path) -> None:
    cache = FolderCache(tmp_path, 10**9) if kind == "folder" else InMemory()
    first, second = bright(10**6), bright(10**6)
    assert not learn(first, examples(), watch, cache)
    assert learn(second, examples(), watch, cache)
    assert (first.bright.learned, second.bright.learned) == (1, 0)
    assert second.object_model.to_bytes() == first.object_model.to_bytes()
    assert cached(tmp_path).entries == (kind == "folder")


def test_without_a_cache_everything_is_learned(bright: Make, watch: Watch) -> None:
    for _ in range(2):
        segmenter = bright(10**6)
        assert not learn(segmenter, examples(), watch)
        assert segmenter.bright.learned == 1


@pytest.mark.parametrize("change", ["pixels", "outline", "settings", "sign"])
def test_anything_that_matters_makes_it_learn_again(
    change: str, bright: Make, watch: Watch, folder: FolderCache
) -> None:
    shown = [*examples(), replace(examples()[0], polygon=box(50, 50, 60, 60))]
    learn(bright(10**6), shown, watch, folder)
    segmenter = bright(10**6)
    if change == "pixels":
        shown[0] = examples(seed=1)[0]
    elif change == "outline":
        shown[0] = examples(size=21)[0]
    elif change == "sign":
        shown[1] = replace(shown[1], negative=True)
    else:
        segmenter = bright(10**6, min_mask_area=31)
    assert not learn(segmenter, shown, watch, folder)
    assert segmenter.bright.learned == 1


def test_other_code_learns_again(bright: Make, watch: Watch, folder: FolderCache) -> None:
    segmenter = bright(10**6)
    older = learning_key(segmenter, examples(), code="older")
    assert older != learning_key(segmenter, examples())
    assert learning_key(segmenter, examples()) == learning_key(bright(10**6), examples())
    segmenter.fit(examples())
    folder.put(older, segmenter.object_model.to_bytes(), [])
    assert not learn(bright(10**6), examples(), watch, folder)
    assert learn(bright(10**6), examples(), watch, folder)


@pytest.mark.parametrize(("side", "other_memory", "same"), [(80, 1.4, True), (1500, 1.4, False), (1500, 16.0, True)])
def test_the_memory_matters_where_it_decides_on_the_parts_of_a_large_frame(
    side: int, other_memory: float, same: bool
) -> None:
    frame = Frame(np.zeros((side, side, 3), np.uint8))
    keys = {
        learning_key(
            BrightSegmenter(Settings(method="grid", max_memory=memory)),
            [Exemplar(image=frame, polygon=box(20, 20, 40, 40))],
        )
        for memory in (8.0, other_memory)
    }
    assert (len(keys) == 1) is same


def test_settings_of_the_search_do_not(bright: Make, watch: Watch, folder: FolderCache) -> None:
    learn(bright(10**6), examples(), watch, folder)
    other = bright_segmenter(10**7, similarity_threshold=0.9, smoothing=0)
    assert learn(other, examples(), watch, folder)


def test_what_was_warned_of_is_warned_of_again(folder: FolderCache) -> None:
    shown = [*examples(), replace(examples()[0], polygon=box(20, 20, 20.1, 20.1))]
    heard = []
    for is_known in (False, True):
        lines = Lines()
        watch = Watch(lines)
        segmenter = BrightSegmenter(Settings(), watch, BrightMethod(**BRIGHT))
        assert learn(segmenter, shown, watch, folder) is is_known
        heard.append(lines.lines)
    assert "Example 2 is left out" in heard[0][0]
    assert heard[0] == heard[1]


def test_that_the_memory_is_short_is_told_of_the_run_at_hand_alone(folder: FolderCache) -> None:
    heard = []
    for memory in (1, 16):
        lines = Lines()
        watch = Watch(lines)
        segmenter = BrightSegmenter(Settings(max_memory=memory), watch, BrightMethod(**BRIGHT))
        assert learn(segmenter, examples(), watch, folder) is (memory == 16)
        heard.append(lines.lines)
    (sentence,), later = heard
    assert sentence.startswith("Learning takes about 1.")
    assert later == []


def test_warnings_have_the_names_that_are_given_now(folder: FolderCache) -> None:
    def told(file: str) -> list[str]:
        lines = Lines()
        shown = [*examples(), replace(examples()[0], polygon=box(20, 20, 20.1, 20.1), label=f"{file}, object 2")]
        watch = Watch(lines)
        learn(BrightSegmenter(Settings(), watch, BrightMethod(**BRIGHT)), shown, watch, folder)
        return lines.lines

    assert "old.png, object 2 is left out" in told("old.png")[0]
    assert "new.png, object 2 is left out" in told("new.png")[0]
    (example,) = examples()
    images = [Frame(scene(80, 3, seed=0), name=name) for name in ("a.png", "b.png", "a.png")]
    assert len({learning_key(BrightSegmenter(), [replace(example, image=image)]) for image in images}) == 2


def test_frames_that_are_displayed_alike_are_told_apart_by_their_exposure() -> None:
    (example,) = examples()
    plane = scene(80, 3, seed=0)[..., 0]
    deep, again, brighter = (as_reader(plane.astype(np.uint16) * times, Settings()) for times in (1, 1, 100))
    assert np.array_equal(deep.read(), brighter.read())
    keys = [learning_key(BrightSegmenter(), [replace(example, image=image)]) for image in (deep, again, brighter)]
    assert keys[0] == keys[1] != keys[2]


def without(content: bytes, name: str, instead: str | None = None) -> bytes:
    """Return an archive without a member, or with other content of it."""
    changed = io.BytesIO()
    with ZipFile(io.BytesIO(content)) as old, ZipFile(changed, "w") as new:
        for member in old.namelist():
            if member != name:
                new.writestr(member, old.read(member))
        if instead is not None:
            new.writestr(name, instead)
    return changed.getvalue()


@pytest.mark.parametrize("damage", ["cut", "empty", "a bit", "no warnings", "bad warnings", "no model", "foreign"])
def test_a_damaged_entry_is_dropped_and_made_again(
    damage: str, bright: Make, watch: Watch, tmp_path: Path, folder: FolderCache
) -> None:
    learn(bright(10**6), examples(), watch, folder)
    (entry,) = tmp_path.glob("*.npz")
    content = entry.read_bytes()
    (warnings,) = [name for name in ZipFile(entry).namelist() if "warnings" in name]
    entry.write_bytes(
        {
            "cut": content[:200],
            "empty": b"",
            "a bit": content[:100] + bytes([content[100] ^ 1]) + content[101:],
            "no warnings": without(content, warnings),
            "bad warnings": without(content, warnings, "{"),
            "no model": without(content, "facts.npy"),
            "foreign": json.dumps([1, 2]).encode(),
        }[damage]
    )
    segmenter = bright(10**6)
    assert not learn(segmenter, examples(), watch, folder)
    assert segmenter.bright.learned == 1
    assert entry.read_bytes() == content
    assert learn(bright(10**6), examples(), watch, folder)


def test_no_damaged_byte_of_an_entry_is_an_accident() -> None:
    archive = io.BytesIO()
    with ZipFile(archive, "w") as file:
        file.writestr("facts.npy", b"x" * 20)
    content = with_warnings(archive.getvalue(), ["warned"])
    assert warnings_in(content) == ["warned"]
    for place in range(len(content)):
        for bit in range(8):
            damaged = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
            assert warnings_in(damaged) in (None, ["warned"])


def test_the_size_is_bounded_and_the_longest_unused_goes(
    bright: Make, watch: Watch, tmp_path: Path, folder: FolderCache
) -> None:
    for seed in range(3):
        learn(bright(10**6), examples(seed), watch, folder)
    size = cached(tmp_path).size
    learn(bright(10**6), examples(0), watch, folder)  # used again
    smaller = FolderCache(tmp_path, size + 500)  # an entry takes about 2,300 bytes
    learn(bright(10**6), examples(3), watch, smaller)
    assert cached(tmp_path).entries == 3
    assert learn(bright(10**6), examples(0), watch, smaller)
    assert not learn(bright(10**6), examples(1), watch, smaller)


def test_what_is_put_has_to_fit_into_the_room(bright: Make, watch: Watch, tmp_path: Path) -> None:
    small = FolderCache(tmp_path, 1)
    for _ in range(2):
        assert not learn(bright(10**6), examples(), watch, small)
    assert cached(tmp_path).entries == 0


def test_a_job_without_room_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    grey = scene(80, 3)[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray((grey == grey.max()).astype(np.uint8)).save(tmp_path / "a_labels.png")
    for room, entries in ((0, 0), (1, 1)):
        request = Request(
            images=[tmp_path / "a.png"],
            examples=tmp_path / "a_labels.png",
            out=tmp_path / f"out{room}",
            settings=Settings(cache_size=room),
        )
        assert run(request, Silent(), BrightMaker(BRIGHT)).complete
        assert cached(cache_folder()).entries == entries
        assert cache_folder().exists() is bool(entries)


def test_a_cache_that_cannot_be_written_stops_nothing(bright: Make, watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not learn(bright(10**6), examples(), watch, FolderCache(tmp_path / "file", 10**9))


def test_many_may_use_it_at_once(bright: Make, watch: Watch, tmp_path: Path, folder: FolderCache) -> None:
    segmenters = [bright(10**6) for _ in range(6)]
    threads = [
        threading.Thread(target=learn, args=(each, examples(number % 2), watch, folder))
        for number, each in enumerate(segmenters)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(each.object_model.areas) == 1 for each in segmenters)
    assert cached(tmp_path).entries == 2


def test_the_command_shows_and_empties_it(bright: Make, watch: Watch) -> None:
    root = cache_folder()
    clear(root)
    learn(bright(10**6), examples(), watch, FolderCache(root, 10**9))
    half_written = root / ".1-b.part"
    half_written.write_bytes(b"1")
    told = CliRunner().invoke(app, ["cache", "info"])
    assert told.exit_code == 0
    assert f"{root}: 1 set of examples" in told.stdout
    emptied = CliRunner().invoke(app, ["cache", "clear"]).stdout
    assert "Deleted 1 set of examples" in emptied
    told = CliRunner().invoke(app, ["cache", "info"])
    assert "0 sets of examples, 0.0 MB" in told.stdout
    assert not half_written.exists()


def test_a_cache_that_cannot_be_emptied_is_not_said_to_be(tmp_path: Path) -> None:
    stuck = tmp_path / "a.npz"
    stuck.mkdir()  # it cannot be deleted like a file, as an entry of another user
    with pytest.raises(InputError, match=r"a\.npz could not be written: "):
        clear(tmp_path)
