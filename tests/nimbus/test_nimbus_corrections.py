"""Corrections in the app: a job that runs again replaces what it made itself, and keeps what the user has touched."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contract_server.bench import DISCS, Bench, bright, discs, ring, white_layer
from contract_server.store import Image
from contract_server.web import Fault
from scipy import ndimage

from bright import BrightMethod
from sam2_fewshot.geometry.outlines import crop_to_object
from sam2_fewshot.methods.base import Scored, ScoredMask, is_known
from sam2_fewshot.nimbus.marks import KEY
from sam2_fewshot.nimbus.messages import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from contract_server.web import ContractServer
    from numpy.typing import NDArray

    from sam2_fewshot.methods.base import Place, Stopwatch, TrainingFrame
    from sam2_fewshot.records import InstanceMask

RIGHT, WRONG, WORSE = 200, 185, 195
"""Intensities of the discs that are wanted, and of two kinds that are not."""


class Corrigible(BrightMethod):
    """Takes what is as bright as the examples: the nearest of the examples and the negative ones decides."""

    def learn(self, frames: Sequence[TrainingFrame]) -> Mapping[str, NDArray[np.generic]]:
        super().learn(frames)

        def brightness(masks: Sequence[tuple[TrainingFrame, InstanceMask]]) -> NDArray[np.float64]:
            return np.array([frame.pixels[..., 0][mask.full()].mean() for frame, mask in masks])

        wanted = brightness([(frame, mask) for frame in frames for mask in frame.positives])
        unwanted = brightness([(frame, mask) for frame in frames for mask in frame.negatives])
        return {"wanted": wanted, "unwanted": unwanted}

    def detect(
        self,
        learned: Mapping[str, NDArray[np.generic]],
        pixels: NDArray[np.uint8],
        known: Sequence[InstanceMask],
        watch: Stopwatch,
        place: Place,
    ) -> Scored:
        self.searched += 1
        self.on_find(self.searched)
        labels, count = ndimage.label(pixels[..., 0] > self.level)
        masks = []
        for number in range(1, count + 1):
            mask = crop_to_object(labels == number)
            own = pixels[..., 0][labels == number].mean()
            apart = [np.abs(learned[name] - own).min(initial=1000.0) for name in ("wanted", "unwanted")]
            if apart[0] <= apart[1] and not is_known(mask, known):
                masks.append(ScoredMask(mask, 0.9, 0.9, 0.9))
        return Scored(masks, count, [item.mask for item in masks])


def plane(xy: int) -> NDArray[Any]:
    """Four discs, and a small one of each wrong kind."""
    pixels = discs(xy)
    rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    for row, column, level in ((31, 12, WRONG), (31, 50, WORSE)):
        pixels[(rows - row) ** 2 + (columns - column) ** 2 <= 16] = level
    return pixels


@pytest.fixture
def bench(server: ContractServer) -> Bench:
    """Three positions, two discs of the first of which are examples."""
    dataset = server.store.add_dataset(Image({(xy, 0, 0, 0): plane(xy) for xy in range(3)}), [white_layer()])
    for row, column in DISCS[:2]:
        server.store.add_annotation(dataset, tags=["cell"], coordinates=ring(row, column))
    server.store.add_annotation(dataset, tags=["well"], coordinates=ring(58, 30, 3))
    made = Bench(server, dataset, method=Corrigible)
    made.job["connectTo"] = {"tags": ["well"], "channel": None}
    return made


def at(bench: Bench, xy: int, row: int, column: int) -> dict[str, Any]:
    """The find at a place."""
    found = [each for each in bench.found() if each["location"]["XY"] == xy]
    (here,) = (each for each in found if np.hypot(*(middle(each) - [column + 0.5, row + 0.5])) < 3)
    return here


def middle(document: dict[str, Any]) -> NDArray[np.float64]:
    return np.mean([[point["x"], point["y"]] for point in document["coordinates"]], axis=0)


def tag(bench: Bench, document: dict[str, Any], *more: str) -> None:
    bench.server.store.edit_annotation(document["_id"], {"tags": [*document["tags"], *more]})


def ids(bench: Bench, xy: int | None = None) -> set[str]:
    return {each["_id"] for each in bench.found() if xy in (None, each["location"]["XY"])}


def sound(bench: Bench) -> None:
    """Each find has its figures once, and a link where there is a well; nothing belongs to what is not there."""
    store = bench.server.store
    untouched = [each for each in bench.found() if each["tags"] == ["found"]]
    assert {each["_id"] for each in untouched} <= set(bench.values()) <= set(store.annotations)
    children = [link["childId"] for link in store.connections.values()]
    assert len(set(children)) == len(children)
    assert {each["_id"] for each in untouched if each["location"]["XY"] == 0} <= set(children) <= set(store.annotations)
    assert len({str(each["coordinates"]) + str(each["location"]) for each in bench.found()}) == len(bench.found())


def test_three_rounds_of_corrections(bench: Bench) -> None:
    store = bench.server.store
    first = bench.run()
    assert first.messages[-1]["info"] == "16 added; 3 frames"  # four discs and two wrong ones, less the examples
    sound(bench)

    # Round two: a find is said to be wrong, the outline of another one is mended, and a right one is an example too.
    wrong = at(bench, 0, 31, 12)
    tag(bench, wrong, "wrong")
    mended = at(bench, 1, *DISCS[0])
    store.edit_annotation(mended["_id"], {"coordinates": ring(*DISCS[0], 5)})
    good = at(bench, 2, *DISCS[3])
    tag(bench, good, "cell")
    touched = deepcopy([wrong, mended, good])
    stay = ids(bench) - {at(bench, xy, 31, 12)["_id"] for xy in (1, 2)}
    second = bench.run(**{"Negative Tag": ["wrong"]})
    assert second.code == 0
    assert second.messages[-1]["info"] == "0 added, 12 already there, 2 removed; 3 frames"
    assert len([exemplar for exemplar in second.exemplars if exemplar.negative]) == 1
    assert len(second.exemplars) == 4
    assert ids(bench) == stay
    assert [store.annotations[each["_id"]] for each in touched] == touched
    sound(bench)

    # Round three: the other kind as well, by taking off the tag of the results.
    worse = at(bench, 2, 31, 50)
    store.edit_annotation(worse["_id"], {"tags": ["wrong"]})
    stay -= {at(bench, xy, 31, 50)["_id"] for xy in (0, 1)} | {worse["_id"]}
    third = bench.run(**{"Negative Tag": ["wrong"]})
    assert third.messages[-1]["info"] == "0 added, 9 already there, 2 removed; 3 frames"
    assert ids(bench) == stay
    assert worse["_id"] in store.annotations
    assert [store.annotations[each["_id"]] for each in touched] == touched
    sound(bench)

    # Once more changes nothing.
    before = deepcopy(store.annotations)
    fourth = bench.run(**{"Negative Tag": ["wrong"]})
    assert fourth.messages[-1]["info"] == "0 added, 9 already there; 3 frames"
    assert store.annotations == before
    sound(bench)


def test_another_smoothing_replaces_all_outlines(bench: Bench) -> None:
    def outlines() -> list[str]:
        return sorted(str(each["location"]) + str(each["coordinates"]) for each in bench.found())

    bench.run(Smoothing=0.3)
    fine, before = outlines(), ids(bench)
    edited = at(bench, 1, *DISCS[0])["_id"]
    bench.server.store.edit_annotation(edited, {"color": "#FF0000"})
    outcome = bench.run(Smoothing=2)
    assert outcome.messages[-1]["info"] == "15 added, 1 already there, 15 removed; 3 frames"
    assert ids(bench) & before == {edited}
    assert len(set(outlines()) & set(fine)) == 1
    sound(bench)
    assert bench.run(Smoothing=2).messages[-1]["info"] == "0 added, 16 already there; 3 frames"


def test_of_results_whose_smoothing_is_not_known_an_outline_that_is_much_the_same_stays(bench: Bench) -> None:
    bench.run(Smoothing=0.3)
    for each in bench.found():  # as earlier versions have made them
        del each[KEY]["smoothing"]
    assert bench.run(Smoothing=0.5).messages[-1]["info"] == "0 added, 16 already there; 3 frames"
    eroded(bench)
    assert bench.run().messages[-1]["info"] == "16 added, 16 removed; 3 frames"


def test_only_frames_that_are_searched_are_replaced(bench: Bench) -> None:
    bench.run()
    others = ids(bench, 1) | ids(bench, 2)
    tag(bench, at(bench, 0, 31, 12), "wrong")
    assert bench.run(**{"Negative Tag": ["wrong"], "Batch XY": "1"}).code == 0
    assert ids(bench, 1) | ids(bench, 2) == others
    assert (
        bench.run(**{"Negative Tag": ["wrong"]}).messages[-1]["info"]
        == "0 added, 13 already there, 2 removed; 3 frames"
    )


def test_a_frame_that_fails_keeps_what_it_has(bench: Bench) -> None:
    bench.run()
    before = ids(bench, 1)
    tag(bench, at(bench, 0, 31, 12), "wrong")
    bench.server.faults = [Fault("GET", "tiles/region", 500, times=3, skip=1)]
    assert bench.run(**{"Negative Tag": ["wrong"]}).code == 1
    assert ids(bench, 1) == before
    assert len(ids(bench, 2)) == 5


def test_what_is_new_is_there_before_what_is_old_goes(bench: Bench) -> None:
    bench.run()
    before = ids(bench)
    # Now everything is found half as large, and thus anew.
    eroded(bench)
    bench.server.faults = [Fault("DELETE", "upenn_annotation/multiple", 500)]
    outcome = bench.run()
    assert outcome.code == 1
    assert "while taking out objects" in outcome.error
    assert before < ids(bench)
    new = ids(bench) - before
    assert bench.run().code == 0
    assert ids(bench) == new
    assert len(new) == len(before) == 16
    sound(bench)


def eroded(bench: Bench, *only: int, iterations: int = 3) -> None:
    """Make everything on some positions smaller, so that it is found with another outline."""
    (image,) = bench.server.store.images.values()
    for key, pixels in image.planes.items():
        if not only or key[0] in only:
            image.planes[key] = np.where(ndimage.binary_erosion(pixels > 100, iterations=iterations), pixels, 100)


def raised(error: BaseException) -> Callable[[int], None]:
    """What a method does before a search: from the second frame on, raise an error."""

    def on_find(number: int) -> None:
        if number > 1:
            raise error

    return on_find


@pytest.mark.parametrize("how", ["cancelled", "logged out"])
def test_a_job_that_ends_early_leaves_no_frame_double(bench: Bench, how: str) -> None:
    bench.run()
    before, others, dark = ids(bench, 0), ids(bench, 1) | ids(bench, 2), at(bench, 0, 31, 12)["_id"]
    eroded(bench, iterations=1)
    store = bench.server.store
    next(iter(store.images.values())).planes[(0, 0, 0, 0)][25:38, 5:19] = 100
    tokens = dict(store.tokens)
    if how == "cancelled":
        bench.method = lambda: Corrigible(on_find=raised(Stopped()))
    else:
        bench.server.faults = [Fault("POST", "upenn_annotation/multiple", store.tokens.clear, skip=1)]
    outcome = bench.run()
    store.tokens.update(tokens)
    assert outcome.code == 1
    assert ids(bench, 1) | ids(bench, 2) == others
    assert ids(bench, 0) & before == {dark}
    assert len(ids(bench, 0)) == 4
    sound(bench)
    assert any("not detected any more (1 on the finished frames) are still there" in line for line in outcome.lines)


def test_what_the_user_does_meanwhile_with_what_is_replaced_counts(bench: Bench) -> None:
    bench.run()
    edited, linked, store = at(bench, 1, 31, 50)["_id"], at(bench, 2, 31, 50)["_id"], bench.server.store
    eroded(bench, iterations=1)
    link = {"childId": linked, "parentId": edited, "datasetId": bench.dataset, "label": "mine", "tags": []}

    def meanwhile() -> None:
        store.edit_annotation(edited, {"name": "mine"})
        store.create_connections([link])

    bench.server.faults = [Fault("POST", "annotation_property_values/multiple", meanwhile, skip=1)]
    assert bench.run().code == 0
    assert edited in ids(bench, 1)
    assert linked not in ids(bench, 2)
    (moved,) = [each for each in store.connections.values() if each["label"] == "mine"]
    assert (moved["childId"], moved["parentId"]) == (at(bench, 2, 31, 50)["_id"], edited)


@pytest.mark.parametrize(
    "changes",
    [
        {"coordinates": ring(*DISCS[3], 5)},
        {"tags": ["found", "wrong"]},
        {"tags": ["wrong"]},
        {"tags": ["found", "checked"]},
        {"tags": ["checked"]},
    ],
    ids=["redrawn", "unwanted", "only unwanted", "tagged", "retagged"],
)
def test_what_the_user_has_edited_since_the_job_began_is_not_doubled(bench: Bench, changes: dict[str, Any]) -> None:
    bench.run()
    edited, store = at(bench, 1, *DISCS[3])["_id"], bench.server.store
    tag(bench, at(bench, 0, 31, 12), "wrong")

    def meanwhile(number: int) -> None:
        if number == 1:
            store.edit_annotation(edited, changes)

    bench.method = lambda: Corrigible(on_find=meanwhile)
    assert bench.run(**{"Negative Tag": ["wrong"], "Smoothing": 2}).code == 0
    here = [each for each in store.annotations.values() if each["location"]["XY"] == 1]
    here = [each for each in here if np.hypot(*(middle(each) - middle(store.annotations[edited]))) < 3]
    assert [each["_id"] for each in here] == [edited]


def test_what_the_user_has_deleted_since_the_job_began_is_added_anew(bench: Bench) -> None:
    bench.run()
    gone, store = at(bench, 1, *DISCS[3])["_id"], bench.server.store
    before = len(bench.found())

    def meanwhile(number: int) -> None:
        if number == 1:
            store.delete_annotations([gone])

    bench.method = lambda: Corrigible(on_find=meanwhile)
    assert bench.run(Smoothing=2).code == 0
    assert gone not in ids(bench)
    assert len(bench.found()) == before
    sound(bench)


def test_what_another_tool_has_found_under_the_same_tag_stays(bench: Bench) -> None:
    bench.run()
    for row, column in DISCS[2:]:
        bench.server.store.add_annotation(bench.dataset, tags=["nucleus"], coordinates=ring(row, column))
    before = ids(bench)
    bench.method = partial(bright, level=255)  # which finds nothing
    assert bench.run(**{"Training Tag": ["nucleus"]}).code == 0
    assert ids(bench) == before
    assert bench.run(**{"Training Tag": ["nucleus", "cell"]}).code == 0
    assert not ids(bench)


def test_results_that_are_examples_too_stay(bench: Bench) -> None:
    bench.job["tags"] = ["cell"]
    bench.run()
    before = set(bench.server.store.annotations)
    assert bench.run().code == 0
    assert set(bench.server.store.annotations) >= before


@pytest.mark.parametrize("label", ["A Connection -- automatic", "mine"])
def test_what_a_user_has_connected_by_hand_stays(bench: Bench, label: str) -> None:
    bench.run()
    kept, other = (at(bench, xy, 31, 12)["_id"] for xy in (1, 2))
    store = bench.server.store
    link = {"childId": kept, "parentId": other, "datasetId": bench.dataset, "label": label, "tags": []}
    (made,) = store.create_connections([link])
    tag(bench, at(bench, 0, 31, 12), "wrong")
    assert bench.run(**{"Negative Tag": ["wrong"]}).code == 0
    assert ({kept, other} <= ids(bench)) == (label == "mine")
    assert (made["_id"] in store.connections) == (label == "mine")


def test_a_track_outlasts_a_neighbour_that_the_user_has_deleted(bench: Bench) -> None:
    """The server leaves the connections of annotations that are deleted together, and takes no new one of them."""

    def pairs() -> list[tuple[str, str]]:
        return [(at(bench, 1, *disc)["_id"], at(bench, 2, *disc)["_id"]) for disc in DISCS]

    bench.run(Smoothing=0.3)
    store, before = bench.server.store, pairs()
    common = {"datasetId": bench.dataset, "label": "track", "tags": ["track"]}
    store.create_connections([{"childId": child, "parentId": parent, **common} for child, parent in before])
    store.delete_annotations([before[1][1]])
    assert bench.run(Smoothing=2).code == 0
    tracks = [(link["childId"], link["parentId"]) for link in store.connections.values() if link["tags"]]
    after = pairs()
    assert not set(before) & set(after)
    assert sorted(tracks) == sorted([after[0], *after[2:]])


def test_what_the_user_edits_while_the_job_runs_stays(bench: Bench) -> None:
    bench.run()
    edited = at(bench, 1, 31, 12)
    tag(bench, at(bench, 0, 31, 12), "wrong")
    mend = partial(bench.server.store.edit_annotation, edited["_id"], {"color": "#00FF00"})
    bench.server.faults = [Fault("GET", "upenn_annotation/count", mend, skip=4)]  # the last look
    assert bench.run(**{"Negative Tag": ["wrong"]}).code == 0
    assert edited["_id"] in ids(bench)
    assert len(ids(bench)) == 15


def test_what_a_negative_lies_on_is_not_added_again(bench: Bench) -> None:
    bench.run()
    wrong = at(bench, 0, *DISCS[3])
    tag(bench, wrong, "wrong")
    bench.method = bright  # which learns nothing, and finds the examples as well
    outcome = bench.run(**{"Negative Tag": ["wrong"]})
    assert outcome.code == 0
    here = [each for each in bench.found() if np.hypot(*(middle(each) - middle(wrong))) < 3]
    assert [each["_id"] for each in here if each["location"]["XY"] == 0] == [wrong["_id"]]


def test_objects_without_a_mark_are_no_replaceable_ones(bench: Bench) -> None:
    bench.run()
    for each in bench.found():
        del each["sam2_fewshot"]
    before = ids(bench)
    bench.method = partial(bright, level=255)
    assert bench.run().code == 0
    assert ids(bench) == before


def test_another_outline_of_the_same_object_takes_over(bench: Bench) -> None:
    bench.run()
    before, store = ids(bench), bench.server.store
    edited = at(bench, 1, *DISCS[0])["_id"]
    store.edit_annotation(edited, {"name": "mine"})
    ends = [at(bench, 0, *DISCS[2])["_id"], at(bench, 1, *DISCS[1])["_id"]]
    link = {"childId": ends[0], "parentId": ends[1], "datasetId": bench.dataset, "label": "mine", "tags": []}
    store.create_connections([link])
    (image,) = store.images.values()
    for key, pixels in image.planes.items():
        image.planes[key] = np.where(ndimage.binary_erosion(pixels > 100), pixels, 100)
    outcome = bench.run()
    assert outcome.messages[-1]["info"] == "15 added, 1 already there, 15 removed; 3 frames"
    assert ids(bench) & before == {edited}
    (moved,) = [each for each in store.connections.values() if each["label"] == "mine"]
    assert moved["childId"] == at(bench, 0, *DISCS[2])["_id"]
    assert moved["parentId"] == at(bench, 1, *DISCS[1])["_id"]
    del store.connections[moved["_id"]]
    sound(bench)
