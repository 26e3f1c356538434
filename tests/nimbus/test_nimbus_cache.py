"""The learned model that is kept with the dataset."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from contract_server.bench import DISCS, Bright, discs, ring
from contract_server.web import Fault

from sam2_fewshot.nimbus import shelf
from sam2_fewshot.nimbus import shelf as cache
from sam2_fewshot.records import Exemplar, Frame
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from contract_server.bench import Bench
    from contract_server.web import ContractServer
    from numpy.typing import NDArray

    from sam2_fewshot.records import Box


def learned(bench: Bench, **form: object) -> bool:
    """Run a job and tell whether it learned anew."""
    outcome = bench.run(**form)
    assert outcome.code == 0, outcome.lines
    assert outcome.engine.fitted + outcome.engine.loaded == 1
    return outcome.engine.fitted == 1


def test_the_same_examples_are_learned_once(bench: Bench) -> None:
    assert learned(bench)
    assert not learned(bench)
    assert not learned(bench, **{"Similarity Threshold": 0.9, "Smoothing": 1, "Batch XY": "2"})
    assert len(bench.server.store.files) == 1


def test_whatever_is_learned_from_counts(bench: Bench) -> None:
    assert learned(bench)
    assert learned(bench, **{"Target Occupancy": 0.5})
    store = bench.server.store
    added = store.add_annotation(bench.dataset, tags=["cell"], coordinates=ring(*DISCS[2]))
    assert learned(bench)
    store.delete_annotations([added])
    assert not learned(bench)
    image = next(iter(store.images.values()))
    kept = image.planes[(0, 0, 0, 0)]
    image.planes[(0, 0, 0, 0)] = discs(1)
    assert learned(bench)
    image.planes[(0, 0, 0, 0)] = kept
    assert not learned(bench)
    bench.engine = type("Other", (Bright,), {"model_sha256": "1" * 64})
    assert learned(bench)


def test_every_setting_counts_but_those_that_are_known_not_to() -> None:
    assert set(Settings.model_fields) >= cache.AFTER_LEARNING
    keys = {cache.content_key([], "0", Settings()), cache.content_key([], "0", Settings(method="grid"))}
    assert len(keys) == 2


def test_a_large_frame_is_read_in_strips_for_it() -> None:
    class Wide(Frame):
        def read(self, region: Box | None = None) -> NDArray[np.uint8]:
            assert region is not None
            return super().read(region)

    pixels = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    plain, wide = (Exemplar(image=kind(pixels), point=(3, 3)) for kind in (Frame, Wide))
    assert cache.content_key([plain], "0", Settings()) == cache.content_key([wide], "0", Settings())


def test_a_deleted_or_damaged_file_is_learned_again(bench: Bench) -> None:
    store = bench.server.store
    assert learned(bench)
    for damage in (b"", b"PK damaged", b"x" * 1000):
        (key,) = store.files
        store.contents[key] = damage
        store.files[key]["size"] = max(1, len(damage))
        assert learned(bench)
        assert not learned(bench)
    store.files.clear()
    assert learned(bench)
    for item in [each for each in store.items.values() if each["name"] == shelf.ITEM]:
        del store.items[item["_id"]]
    store.files.clear()
    assert learned(bench)


def test_few_files_are_kept(bench: Bench) -> None:
    for number in range(cache.KEEP + 2):
        assert learned(bench, **{"Target Occupancy": 0.1 + number / 100})
    assert len(bench.server.store.files) == cache.KEEP
    assert not learned(bench, **{"Target Occupancy": 0.1 + (cache.KEEP + 1) / 100})


def test_a_large_one_is_not_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "LARGEST", 10)
    assert learned(bench)
    assert not bench.server.store.files


def test_trouble_with_it_is_no_trouble_of_the_job(bench: Bench) -> None:
    for fault in (
        Fault("GET", "^item$", 500),
        Fault("GET", "item/.*/files", 403),
        Fault("GET", "file/.*/download", 500),
        Fault("POST", "^file$", 500),
        Fault("POST", "^item$", 500),
    ):
        bench.server.faults = [fault]
        bench.run()
        assert len(bench.found()) == 12


def test_the_remarks_about_examples_come_also_when_they_are_not_learned_again(bench: Bench) -> None:
    class Critical(Bright):
        def fit(self, exemplars: object) -> None:
            super().fit(exemplars)  # type: ignore[arg-type]
            assert self.progress is not None
            self.progress.warn("Example 2 is odd.")

    bench.engine = Critical
    assert bench.run().texts("warning") == ["Example 2 is odd."]
    again = bench.run()
    assert again.engine.loaded == 1
    assert again.texts("warning") == ["Example 2 is odd."]


def test_two_jobs_may_keep_it_at_once(bench: Bench, server: ContractServer) -> None:
    both = threading.Barrier(2)

    class Together(Bright):
        def save(self, path: Path) -> None:
            super().save(path)
            both.wait(10)

    bench.engine = Together
    threads = [threading.Thread(target=bench.run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.engine = Bright
    assert not learned(bench)
