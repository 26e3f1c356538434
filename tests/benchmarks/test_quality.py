"""Scenes and tasks."""

import numpy as np
import pytest
from benchmarks.quality.scenes import KINDS, scene
from benchmarks.quality.tasks import (
    LARGEST,
    ONE_FRAME,
    SALIENT,
    Picture,
    at_border,
    fewer_frames,
    generated_tasks,
    is_called,
    kinds_called,
    make_tasks,
    quick_choice,
    read_tasks,
)
from quality_world import picture

# --- scenes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_is_the_same_for_the_same_seed_and_holds_all_classes(kind):
    image, labels, classes = scene(kind, 3, size=200, objects=9)
    again = scene(kind, 3, size=200, objects=9)
    assert (image == again[0]).all()
    assert (labels == again[1]).all()
    assert image.dtype == np.uint8
    assert set(np.unique(labels)) == {0, *classes}
    assert set(classes.values()) == {look.name for look in KINDS[kind]}
    assert not (scene(kind, 4, size=200, objects=9)[1] == labels).all()


def test_objects_that_find_no_room_are_left_out():
    _, labels, classes = scene("size", 0, size=64, objects=60)
    assert 0 < len(classes) < 60
    assert set(np.unique(labels)) == {0, *classes}


def test_shapes_have_the_same_area_and_sizes_have_not():
    def areas(kind):
        _, labels, classes = scene(kind, 0, size=300, objects=18)
        return {
            name: np.mean([(labels == i).sum() for i, n in classes.items() if n == name]) for name in classes.values()
        }

    shape, size = areas("shape"), areas("size")
    assert max(shape.values()) < 1.35 * min(shape.values())
    assert size["large"] > 2 * size["small"]


# --- tasks --------------------------------------------------------------------------------------------------------


def test_examples_come_from_the_first_frames_and_queries_from_the_others():
    pictures = [picture(f"p{i}", ["a"] * 8 + ["b"] * 2) for i in range(8)]
    a, b = make_tasks("fewshot", "g", pictures)
    assert (a.name, b.name) == ("g:a", "g:b")
    assert [p.name for p in a.example_frames] == ["p0", "p1", "p2"]  # 24 of a are at least 20
    assert [p.name for p in b.example_frames] == ["p0", "p1", "p2", "p3"]  # at most half of the frames
    episode = a.episode(5, seed=0)
    assert {e.label for e in episode.examples} <= {"p0", "p1", "p2"}
    assert [q.picture.name for q in episode.queries] == ["p3", "p4", "p5", "p6", "p7"]
    assert all(len(q.truth) == 8 and not q.ignore for q in episode.queries)
    assert b.episode(10, seed=0) is None


def test_choices_are_seeded_and_nested():
    (task,) = make_tasks("dev", "g", [picture(f"p{i}", ["a"] * 12) for i in range(4)])

    def masks(k, seed):
        return [(e.label, e.mask.nonzero()[1].min()) for e in task.episode(k, seed).examples]

    assert masks(5, 1) == masks(5, 1)
    assert masks(10, 1)[:5] == masks(5, 1)
    assert masks(10, 1) != masks(10, 2)


def test_objects_at_the_border_are_marked_last():
    labels = np.zeros((50, 50), np.int32)
    labels[:10, :10], labels[20:30, 20:30], labels[35:40, 35:40] = 1, 2, 3
    frame = Picture("p", labels.astype(np.uint8), labels, dict.fromkeys((1, 2, 3), "a"))
    assert [at_border(m) for m, _ in frame.objects] == [True, False, False]
    (task,) = make_tasks("dev", "g", [frame, frame])
    for seed in range(5):
        assert not any(e.mask[0, 0] for e in task.episode(2, seed).examples)
    assert len(task.episode(3, 0).examples) == 3


def test_what_the_annotator_left_open_is_ignored_and_no_class_of_its_own():
    pictures = [picture(f"p{i}", ["a", "b", "ignore"]) for i in range(4)]
    tasks = list(make_tasks("fewshot", "g", pictures))
    assert [t.wanted for t in tasks] == ["a", "b"]
    query = tasks[0].episode(1, 0).queries[0]
    assert (len(query.truth), len(query.ignore)) == (1, 1)


def test_negatives_are_of_other_classes_and_from_the_example_frames():
    (a, _) = make_tasks("fewshot", "g", [picture(f"p{i}", ["a", "b", "b", "ignore"]) for i in range(4)])
    episode = a.episode(2, 0, negatives=3)
    assert len(episode.negatives) == 3
    assert all(e.negative for e in episode.negatives)
    assert {e.label for e in episode.negatives} <= {"p0", "p1"}
    columns = {int(e.mask.nonzero()[1].min()) for e in episode.negatives}
    assert columns <= {40, 70}  # where the b lie
    assert not a.episode(2, 0).negatives


def test_in_a_single_frame_the_examples_are_ignored():
    (task,) = make_tasks("dev", "g", [picture("p", ["a"] * 10)])
    assert task.family == ONE_FRAME
    (query,) = task.episode(4, 0).queries
    assert (len(query.truth), len(query.ignore)) == (6, 4)
    assert task.episode(6, 0) is None  # fewer would be left than are shown


def test_fewer_frames_are_spread_evenly():
    (task,) = make_tasks("dev", "g", [picture(f"p{i}", ["a"] * 10) for i in range(12)])
    assert [p.name for p in task.query_frames] == [f"p{i}" for i in range(2, 12)]
    assert [p.name for p in fewer_frames(task, 2).query_frames] == ["p4", "p9"]
    assert fewer_frames(task, 0) is task
    assert fewer_frames(task, 10) is task


def test_tasks_are_read_by_type_of_image_and_class(data):
    tasks = {task.name: task for task in read_tasks(data)}
    assert set(tasks) == {
        "dev/cells/long:object",
        "dev/cells/round:object",
        "fewshot/live_dead_cells:dead",
        "fewshot/live_dead_cells:living",
    }
    assert tasks["dev/cells/long:object"].family == ONE_FRAME
    assert not tasks["fewshot/live_dead_cells:dead"].loose
    assert tasks["dev/cells/round:object"].query_frames[0].image.shape == (60, 400)


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither dev/ nor fewshot/"):
        read_tasks(tmp_path)


def test_generated_tasks_and_their_quick_choice():
    tasks = generated_tasks(["size", "texture"], size=256, scenes=2)
    assert [t.name for t in tasks] == [
        "look-alike/size:large",
        "look-alike/size:small",
        "look-alike/texture:smooth",
        "look-alike/texture:speckled",
    ]
    assert {t.family for t in tasks} == {"look-alike"}
    assert quick_choice(tasks) == [tasks[0], tasks[2]]


def test_tasks_are_called_by_a_part_of_their_name_or_a_pattern():
    assert kinds_called(["texture:smooth", "*/size:l*"]) == ["size", "texture"]
    assert kinds_called(None) == list(KINDS)
    assert kinds_called(["dev"]) == []
    assert is_called("dev/cells:object", ["fewshot", "dev/*"])


def test_examples_can_be_chosen_as_people_do():
    """The largest, or those that stand out and lie alone; each way the same every time, whatever the seed."""
    rows, columns = np.mgrid[:120, :300]
    labels = np.zeros((120, 300), np.int32)
    for number, (y, x, radius) in enumerate([(30, 30, 12), (30, 90, 7), (30, 200, 7), (80, 90, 6), (80, 108, 6)], 1):
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = number
    brightness = np.array([50, 120, 130, 220, 200, 200], np.uint8)
    pictures = [
        Picture(f"p{i}", brightness[labels], labels, dict.fromkeys(range(1, 6), "a")) for i in range(2)
    ]  # fmt: skip
    (task,) = make_tasks("dev", "g", pictures)

    def sizes(choice, k, seed=0):
        return [int(e.mask.sum()) for e in task.episode(k, seed, choice=choice).examples]

    def columns_of(choice, k, seed=0):
        return [int(e.mask.nonzero()[1].mean()) for e in task.episode(k, seed, choice=choice).examples]

    assert sizes(LARGEST, 3) == sorted(sizes(LARGEST, 5), reverse=True)[:3]
    assert columns_of(LARGEST, 1) == [30]
    assert columns_of(SALIENT, 1) == [200]  # brightest of those that are alone
    assert columns_of(SALIENT, 5)[-2:] in ([90, 108], [108, 90])
    assert columns_of(LARGEST, 1, seed=3) == columns_of(LARGEST, 1)
