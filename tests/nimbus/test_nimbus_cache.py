"""The learned model that is kept with the dataset."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from contract_server.bench import DISCS, Segmenter, bright, discs, ring
from contract_server.web import Fault

from bright import BrightMethod, BrightSegmenter
from sam2_fewshot.nimbus.shelf import ITEM, KEEP
from sam2_fewshot.records import Exemplar, Frame
from sam2_fewshot.runner.run import learning_key
from sam2_fewshot.settings import AFTER_LEARNING, Settings
from sam2_fewshot.storage.arrays import Layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contract_server.bench import Bench
    from contract_server.web import ContractServer
    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import Place, Scored, Stopwatch
    from sam2_fewshot.records import Box, InstanceMask


def learned(bench: Bench, **form: object) -> bool:
    """Run a job and tell whether it learned anew."""
    outcome = bench.run(**form)
    assert outcome.code == 0, outcome.lines
    return outcome.learned


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
    bench.kind = type("Other", (Segmenter,), {"model_sha256": "1" * 64})
    assert learned(bench)
    bench.kind = type("Elsewhere", (Segmenter,), {"device_name": "another GPU"})
    assert learned(bench)


class Wiser(BrightMethod):
    """The method of a rebuilt program: it learns one more thing, and cannot do without."""

    layouts: ClassVar = BrightMethod.layouts | {"wisdom": Layout("f8", (1,))}

    def learn(self, frames: Sequence[Any]) -> Mapping[str, NDArray[np.generic]]:
        return {**super().learn(frames), "wisdom": np.ones(1)}

    def detect(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        watch: Stopwatch,
        place: Place,
    ) -> Scored:
        assert learned["wisdom"].all()
        return super().detect(learned, pixels, known, watch, place)


def test_a_rebuilt_worker_learns_anew(bench: Bench) -> None:
    """The key was the version string, which a rebuilt worker shares with the one before.

    It took what that one had learned, missed "wisdom" in it, and every job with these examples ended in "This is a
    defect of sam2-fewshot", until somebody changed an example.
    """
    bench.means = replace(bench.means, code="as published")
    assert learned(bench)
    bench.method = Wiser
    bench.means = replace(bench.means, code="mended under the same version number")
    assert learned(bench)
    assert not learned(bench)
    bench.method = bright
    bench.means = replace(bench.means, code="as published")
    assert not learned(bench)


def test_every_setting_counts_but_those_that_are_known_not_to() -> None:
    assert set(Settings.model_fields) >= AFTER_LEARNING
    keys = {learning_key(BrightSegmenter(settings), []) for settings in (Settings(), Settings(method="grid"))}
    assert len(keys) == 2
    assert len({learning_key(BrightSegmenter(), [], code) for code in (None, "other", "other")}) == 2


def test_a_large_frame_is_read_in_strips_for_it() -> None:
    class Wide(Frame):
        def read(self, region: Box | None = None) -> NDArray[np.uint8]:
            assert region is not None
            return super().read(region)

    pixels = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    plain, wide = (Exemplar(image=kind(pixels), point=(3, 3)) for kind in (Frame, Wide))
    assert len({learning_key(BrightSegmenter(), [exemplar]) for exemplar in (plain, wide)}) == 1


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
    for item in [each for each in store.items.values() if each["name"] == ITEM]:
        del store.items[item["_id"]]
    store.files.clear()
    assert learned(bench)


def test_few_files_are_kept(bench: Bench) -> None:
    for number in range(KEEP + 2):
        assert learned(bench, **{"Target Occupancy": 0.1 + number / 100})
    assert len(bench.server.store.files) == KEEP
    assert not learned(bench, **{"Target Occupancy": 0.1 + (KEEP + 1) / 100})


def test_a_large_one_is_not_kept(bench: Bench) -> None:
    bench.means = replace(bench.means, largest_file=10)
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
    bench.server.store.add_annotation(bench.dataset, tags=["cell"], coordinates=ring(*DISCS[1]))
    place = "Example at XY 1, Z 1, Time 1, x 48, y 14"
    said = [f"{place} and {place} mark the same object, which is counted once."]
    assert bench.run().texts("warning") == said
    again = bench.run()
    assert not again.learned
    assert again.texts("warning") == said


def test_two_jobs_may_keep_it_at_once(bench: Bench, server: ContractServer) -> None:
    both = threading.Barrier(2)

    def wait() -> None:
        both.wait(10)

    server.faults = [Fault("POST", "^file$", wait, times=2)]
    threads = [threading.Thread(target=bench.run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.store.files) == 2
    assert not learned(bench)
