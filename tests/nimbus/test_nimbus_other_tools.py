"""Tools whose results share tags, or lie in different channels, leave one another's results alone."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from contract_server.bench import DISCS, Bench, bright, ring

from sam2_fewshot.nimbus.marks import KEY

if TYPE_CHECKING:
    from contract_server.bench import Outcome

SURER = partial(bright, score=0.95)
NOTHING = partial(bright, level=255)


def run(bench: Bench, *tags: str, channel: int = 0) -> Outcome:
    (image,) = bench.server.store.images.values()
    image.planes.update({(xy, 0, 0, 1): plane for (xy, _, _, at), plane in [*image.planes.items()] if at == 0})
    bench.job = {"tags": list(tags), "channel": channel}
    outcome = bench.run()
    assert outcome.code == 0
    return outcome


def info(outcome: Outcome) -> str:
    return str(outcome.messages[-1]["info"])


def ids(bench: Bench, *tags: str, channel: int = 0) -> set[str]:
    found = [each for each in bench.found() if set(each["tags"]) == set(tags)]
    return {each["_id"] for each in found if each["channel"] == channel}


def again(bench: Bench, key: str) -> str:
    """Put an object there once more, with its figures."""
    store = bench.server.store
    document = {name: value for name, value in store.annotations[key].items() if name != "_id"}
    (made,) = store.create_annotations([deepcopy(document)])
    (figures,) = [each for each in store.values if each["annotationId"] == key]
    store.values.append({**deepcopy(figures), "_id": store.new_id(), "annotationId": made["_id"]})
    return str(made["_id"])


def test_the_results_of_a_tool_with_more_tags_stay(bench: Bench) -> None:
    run(bench, "found", "lenient")
    before = ids(bench, "found", "lenient")
    assert info(run(bench, "found")) == "0 added, 12 already there; 3 frames"
    bench.method = NOTHING
    assert info(run(bench, "found")) == "0 added; 3 frames"
    assert ids(bench, "found", "lenient") == before
    assert len(before) == 12
    assert info(run(bench, "lenient", "found")) == "0 added, 12 removed; 3 frames"


def test_what_a_tool_with_more_tags_has_found_too_is_there_twice_and_stays(bench: Bench) -> None:
    run(bench, "found")
    run(bench, "found", "lenient")
    before = set(bench.server.store.annotations)
    bench.method = SURER
    assert info(run(bench, "found")) == "0 added, 12 already there; 3 frames"
    assert set(bench.server.store.annotations) == before
    scores = {key: figures["Score"] for key, figures in bench.values().items()}
    assert {scores[key] for key in ids(bench, "found")} == {0.95}
    assert {scores[key] for key in ids(bench, "found", "lenient")} == {0.9}


def test_what_is_edited_of_a_tool_with_more_tags_takes_no_place_of_a_result(bench: Bench) -> None:
    run(bench, "found")
    run(bench, "found", "lenient")
    before, store = set(bench.server.store.annotations), bench.server.store
    edited = max(ids(bench, "found", "lenient"))
    store.edit_annotation(
        edited, {"coordinates": [{**at, "x": at["x"] + 1} for at in store.annotations[edited]["coordinates"]]}
    )
    assert info(run(bench, "found")) == "0 added, 12 already there; 3 frames"
    assert set(store.annotations) == before


@pytest.mark.parametrize("is_marked", [True, False])
def test_doubles_of_another_tool_are_left_to_it(bench: Bench, is_marked: bool) -> None:
    run(bench, "found", "lenient")
    run(bench, "found", channel=1)
    once = set(bench.server.store.annotations)
    doubles = {again(bench, min(ids(bench, "found", "lenient"))), again(bench, min(ids(bench, "found", channel=1)))}
    if not is_marked:
        for each in bench.found():
            del each[KEY]
    run(bench, "found")
    assert doubles < set(bench.server.store.annotations)
    run(bench, "found", "lenient")
    run(bench, "found", channel=1)
    assert doubles.isdisjoint(bench.server.store.annotations)
    assert once <= set(bench.server.store.annotations)


def test_each_channel_has_results_of_its_own(bench: Bench) -> None:
    run(bench, "found")
    first = ids(bench, "found")
    assert info(run(bench, "found", channel=1)) == "12 added; 3 frames"
    assert info(run(bench, "found", channel=1)) == "0 added, 12 already there; 3 frames"
    assert Counter(each["channel"] for each in bench.found()) == {0: 12, 1: 12}
    bench.method = NOTHING
    assert info(run(bench, "found", channel=1)) == "0 added, 12 removed; 3 frames"
    assert ids(bench, "found") == first


def test_results_of_earlier_versions_count_in_their_channel(bench: Bench) -> None:
    run(bench, "found", channel=1)
    for each in bench.found():
        del each[KEY]
    assert info(run(bench, "found", channel=1)) == "0 added, 12 already there; 3 frames"
    assert info(run(bench, "found")) == "12 added; 3 frames"


@pytest.mark.parametrize(("changes", "added"), [({}, 11), ({"tags": ["found", "wrong"]}, 11), (None, 12)])
def test_what_the_user_has_moved_to_another_channel_counts_where_it_was(
    bench: Bench, changes: dict[str, Any] | None, added: int
) -> None:
    store = bench.server.store
    if changes is None:  # the user's own, which was never in the first channel
        kept = store.add_annotation(bench.dataset, tags=["found"], coordinates=ring(*DISCS[3]), channel=1)
    else:
        run(bench, "found")
        kept = max(ids(bench, "found"))
        store.delete_annotations(sorted(ids(bench, "found") - {kept}))
        store.edit_annotation(kept, {"channel": 1, **changes})
    bench.form["Negative Tag"] = ["wrong"]
    before = deepcopy(store.annotations[kept])
    for _ in range(2):
        run(bench, "found")
        assert len(ids(bench, "found")) == added
        assert store.annotations[kept] == before


def test_another_tool_with_the_same_tags_is_warned_of(bench: Bench) -> None:
    assert not run(bench, "found").texts("warning")
    for row, column in DISCS[2:]:
        bench.server.store.add_annotation(bench.dataset, tags=["nucleus"], coordinates=ring(row, column))
    bench.form["Training Tag"] = ["nucleus"]
    assert run(bench, "found").texts("warning") == [
        "There are results with just the tags of this tool's, found from examples with the tag 'cell'. An object that "
        "both find is saved once, and the tool that saved it removes it for both. Give each tool a tag of its own for "
        "its results."
    ]
    assert not run(bench, "nuclei").texts("warning")
    bench.form["Training Tag"] = ["nucleus", "cell"]
    assert not run(bench, "nuclei").texts("warning")


def test_a_job_at_the_same_time_is_warned_of(bench: Bench) -> None:
    other = deepcopy(bench.form)

    def meanwhile(number: int) -> None:
        if number == 2:
            assert not Bench(bench.server, bench.dataset, form=other).run().texts("warning")

    bench.method = partial(bright, on_find=meanwhile, level=255)
    assert [text for text in run(bench, "found").texts("warning") if text.startswith("Another job")] == [
        "Another job has added objects with the same tags meanwhile, and they stay as they are. If its settings were "
        "others, run the tool again when both are done."
    ]
    bench.method = partial(bright, level=255)
    assert not any(text.startswith("Another job") for text in run(bench, "found").texts("warning"))
    assert not bench.found()
