import json
import math

import numpy as np
import pytest
from benchmarks.quality.__main__ import main
from benchmarks.quality.figures import Find, Judged, counts, curve, judge, reach
from benchmarks.quality.floor import OtsuFloor
from benchmarks.quality.methods import Outcome, Told, _few_shot, make_method
from benchmarks.quality.oracle import click, interior_point
from benchmarks.quality.protocol import run, stage_means, summarise
from benchmarks.quality.scenes import KINDS, scene
from benchmarks.quality.table import text
from benchmarks.quality.tasks import (
    ONE_FRAME,
    Picture,
    Query,
    at_border,
    fewer_frames,
    generated_tasks,
    is_called,
    kinds_called,
    make_tasks,
    quick_choice,
    read_tasks,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sam2_fewshot.errors import InputError, SettingsError
from sam2_fewshot.evaluation import label_image_to_instances, match
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.settings import Settings


def box(x0, y0, width, height, frame=(100, 100)):
    return InstanceMask(np.ones((height, width), bool), x0, y0, frame)


def picture(name, classes, shape=(60, 400)):
    """Return a frame with a bright 20-px square for each class given, in a row, none at the border."""
    labels = np.zeros(shape, np.int32)
    for i in range(len(classes)):
        labels[20:40, 10 + 30 * i : 30 + 30 * i] = i + 1
    image = np.where(labels > 0, 200, 30).astype(np.uint8)
    return Picture(name, image, labels, dict(enumerate(classes, 1)))


class TruthTeller:
    """Finds all that is true, after learning anything; with a wrong find that scores least."""

    negatives = 0
    scored = True

    def __init__(self, label="truth", refuse=False):
        self.label, self.refuse = label, refuse

    def learn(self, episode):
        if self.refuse:
            raise InputError("None of the examples can be learned from.")

    def find(self, query):
        right = [Find(mask, 0.9) for mask in query.truth]
        wrong = Find(box(0, 0, 5, 5, query.picture.labels.shape), 0.2)
        return Outcome(right, [*right, wrong], {"look": 0.5})


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


@pytest.fixture
def data(tmp_path):
    """A data folder with hashed names, a single frame, and two classes of which the truth is rough."""

    def put(folder, name, classes, listed):
        made = picture(name, classes)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made.image).save(folder / f"{name}.png")
        Image.fromarray(made.labels.astype(np.uint16)).save(folder / f"{name}_labels.png")
        if listed:
            (folder / f"{name}_classes.json").write_text(json.dumps({str(k): v for k, v in made.classes.items()}))

    for i in range(4):
        put(tmp_path / "dev" / "cells", f"round_0000000{i}", ["x"] * 8, listed=False)
        put(tmp_path / "fewshot" / "live_dead_cells", f"f{i}", ["living"] * 6 + ["dead"] * 4, listed=True)
    put(tmp_path / "dev" / "cells", "long_0123abcd", ["x"] * 8, listed=False)
    (tmp_path / "dev" / "SOURCE.md").write_text("not a dataset")
    return tmp_path


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


# --- figures ------------------------------------------------------------------------------------------------------


def test_average_precision_by_hand():
    frames = [
        Judged([(0.9, 0), (0.8, -1), (0.7, 1), (0.6, 0)], [10, 10], [True, True]),
        Judged([(0.5, 0)], [10, 10], [True, False]),
    ]
    # By score: hit, miss, hit, the same object again, hit; 4 objects. Precision made monotone: 1, 2/3, 3/5.
    found = curve(frames)
    assert found.average_precision == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    assert found.best_f1 == pytest.approx(2 * 3 / (5 + 4))
    assert found.best_threshold == 0.5


def test_finds_of_the_same_score_come_together():
    first = curve([Judged([(0.5, -1), (0.5, 0)], [10], [True])])
    second = curve([Judged([(0.5, 0), (0.5, -1)], [10], [True])])
    assert first == second
    assert first.average_precision == 0.5


def test_no_finds_or_no_objects_give_no_figures():
    assert curve([Judged([], [10], [False])]).best_f1 == 0
    assert curve([Judged([(0.5, -1)], [], [])]).average_precision == 0
    assert reach([Judged([], [], [])]) == (None, [None] * 3, [])


def test_recall_of_the_proposals_by_thirds():
    areas = [1, 2, 10, 20, 100, 200]
    overall, by_size, edges = reach([Judged([], areas, [False, False, True, False, True, True])])
    assert overall == 0.5
    assert by_size == [0, 0.5, 1]
    assert 2 < edges[0] < 10 < 20 < edges[1] < 100


def test_a_find_on_what_is_ignored_counts_neither_way():
    truth, ignored = [box(10, 10, 10, 10)], [box(50, 50, 10, 10)]
    finds = [Find(box(10, 10, 10, 9), 0.9), Find(box(50, 50, 10, 10), 0.8), Find(box(80, 80, 5, 5), 0.1)]
    judged = judge(finds, truth, ignored)
    assert judged.scored == [(0.9, 0), (0.1, -1)]
    assert judged.reached == [True]
    scores = counts(finds, truth, ignored, 0.5)
    assert (scores.tp, scores.fp, scores.fn) == (1, 1, 0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 80),
            st.integers(0, 80),
            st.integers(4, 20),
            st.integers(4, 20),
            st.sampled_from([0.1, 0.5, 0.9]),
        ),
        max_size=12,
    )
)
def test_the_best_f1_of_the_curve_is_that_of_one_to_one_matching(drawn):
    truth = [box(x, y, 13, 13) for x in (5, 20, 60) for y in (5, 18, 60)]
    finds = [Find(box(x, y, w, h), score) for x, y, w, h, score in drawn]
    found = curve([judge(finds, truth, [])])
    over_all = [
        counts([f for f in finds if f.score >= cut], truth, [], 0.5).f1 for cut in {f.score for f in finds} or {0.0}
    ]
    assert found.best_f1 == pytest.approx(max(over_all))
    assert 0 <= found.average_precision <= 1


# --- floor and oracle ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("colour", [False, True])
def test_the_floor_finds_what_lies_on_the_side_of_the_examples(discs, dark, colour):
    image, labels = discs
    image = 255 - image if dark else image
    frame = Picture("p", image if colour else image[..., 0], labels, dict.fromkeys(range(1, 9), "disc"))
    (task,) = make_tasks("dev", "g", [frame])
    floor = OtsuFloor(task.episode(2, 0).examples)
    assert floor.bright is not dark
    found = match(floor.find(frame.image), frame.of("disc"), 0.5).scores
    assert found.recall >= 7 / 8
    assert found.precision >= 7 / 8


def test_the_floor_splits_touching_discs_and_finds_rings_whole():
    rows, columns = np.mgrid[:60, :80]
    distance = np.minimum(np.hypot(rows - 30, columns - 25), np.hypot(rows - 30, columns - 48))
    labels = ((distance < 12) * np.where(columns < 36.5, 1, 2)).astype(np.int32)
    # A ring with a middle as bright as the ground is dark is filled.
    image = np.where(distance < 4, 250, np.where(distance < 12, 20, 160)).astype(np.uint8)
    frame = Picture("p", image, labels, {1: "a", 2: "a"})
    (task,) = make_tasks("dev", "g", [frame, frame])
    floor = OtsuFloor(task.episode(1, 0).examples)
    assert match(floor.find(image), frame.of("a"), 0.5).scores.f1 == 1


def test_the_floor_finds_nothing_in_a_frame_of_one_colour():
    frame = picture("p", ["a"] * 3)
    (task,) = make_tasks("dev", "g", [frame, frame])
    assert OtsuFloor(task.episode(1, 0).examples).find(np.full((40, 40), 9, np.uint8)) == []


def test_the_floor_wants_masks():
    from sam2_fewshot.records import Exemplar

    with pytest.raises(ValueError, match="masks only"):
        OtsuFloor([Exemplar(image=np.zeros((9, 9), np.uint8), point=(3, 3))])


def test_the_interior_point_lies_on_the_object():
    ring = np.ones((9, 21), bool)
    ring[2:7, 2:14] = False
    x, y = interior_point(InstanceMask(ring, 30, 40, (100, 100)))
    assert ring[int(y) - 40, int(x) - 30]
    assert x > 30 + 14
    assert (x % 1, y % 1) == (0.5, 0.5)


@pytest.mark.parametrize("zoom", [False, True])
def test_the_oracle_reaches_discs(micro, discs, zoom):
    image, labels = discs
    truth = label_image_to_instances(labels)
    found = click(micro, image, truth, zoom=zoom)
    assert len(found) == len(truth)
    ious = [mask_iou(a, b) for a, b in zip(found, truth, strict=True)]
    assert np.mean([iou >= 0.5 for iou in ious]) >= 0.75
    assert click(micro, image, [], zoom=zoom) == []


# --- methods ------------------------------------------------------------------------------------------------------


def disc_query(discs):
    image, labels = discs
    return Query(
        Picture("discs", image, labels, dict.fromkeys(range(1, 9), "disc")), label_image_to_instances(labels), []
    )


def disc_episode(discs):
    image, labels = discs
    frame = Picture("discs", np.ascontiguousarray(image[::-1]), labels[::-1], dict.fromkeys(range(1, 9), "disc"))
    (task,) = make_tasks("dev", "g", [frame, disc_query(discs).picture])
    return task.episode(2, 0)


class Replay:
    """A segmenter that gives again what another one found on its only frame."""

    def __init__(self, segmenter, image):
        self.found = segmenter.segment(image)
        self.last_run = segmenter.last_run

    def segment(self, image):
        return self.found


def test_one_run_of_grid_gives_what_two_runs_give(micro, discs):
    """The second way is that of every method but grid, as every later one takes it."""
    # Few candidates, so that few crops are encoded.
    values = {"points_per_side": 16, "min_mask_area": 400, "max_mask_area": 600, "similarity_threshold": 0.99}
    told = Told()
    two = _few_shot("grid", "x", {**values, "max_examples": 1}, micro, 99, told)
    one = make_method("grid:" + ",".join(f"{k}={v}" for k, v in values.items()) + ",max_examples=1", micro, 99, told)
    two.learn(disc_episode(discs))
    one.learn(disc_episode(discs))
    query = disc_query(discs)
    two._learned = [Replay(segmenter, query.picture.image) for segmenter in two._learned]
    assert one._learned[0].settings == one._runs()[0] == two._everything
    one._learned = two._learned[1:]
    first, second = two.find(query), one.find(query)
    assert 0 < len(first.kept) < len(first.everything)
    for of_one, of_two in ((second.kept, first.kept), (second.everything, first.everything)):
        assert [f.score for f in of_one] == [f.score for f in of_two]
        assert [f.mask.box for f in of_one] == [f.mask.box for f in of_two]
    assert set(first.seconds) == {"encode", "propose", "compare", "outline"}
    assert len(told.warnings) == 1
    assert "Max Examples" in next(iter(told.warnings))


def test_settings_for_the_run_that_keeps_everything(micro):
    method = _few_shot("grid", "x", {"box_nms_iou": 0.6, "all.box_nms_iou": 0.5}, micro, 99, Told())
    assert [(s.similarity_threshold, s.box_nms_iou) for s in method._runs()] == [(0.5, 0.6), (0, 0.5)]


def test_settings_are_read_from_the_name(micro):
    told = Told()
    method = make_method("grid:similarity_threshold=0.8,negatives=5", micro, 16, told)
    assert method.label == "grid:similarity_threshold=0.8,negatives=5"
    assert method.negatives == 5
    assert method._settings == Settings(method="grid", points_per_side=16, similarity_threshold=0.8)
    assert make_method("grid:points_per_side=64", micro, 16, told)._settings.points_per_side == 64


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("psychic", "Method .* 'psychic'"),
        ("grid:nonsense=1", "no setting called 'nonsense'"),
        ("grid:points_per_side=9", "16 to 256"),
        ("grid:points_per_side", "not of the form"),
        ("grid:negatives=-1", "at least 0"),
        ("floor:radius=3", "no settings"),
        ("oracle:zoom=3", "no settings"),
    ],
)
def test_what_is_no_method_is_refused(micro, spec, message):
    with pytest.raises(SettingsError, match=message):
        make_method(spec, micro, 16, Told())


def test_floor_and_oracle_behind_the_seam(micro, discs):
    floor = make_method("floor", micro, 16, Told())
    with pytest.raises(RuntimeError):
        floor.find(disc_query(discs))
    floor.learn(disc_episode(discs))
    assert len(floor.find(disc_query(discs)).kept) >= 7
    oracle, query = make_method("oracle", micro, 16, Told()), disc_query(discs)
    oracle.learn(disc_episode(discs))
    assert oracle.find(query) is oracle.find(query)
    assert len(oracle.find(query).kept) == 8


# --- the protocol and the table ------------------------------------------------------------------------------------


@pytest.fixture
def tasks():
    several = [picture(f"p{i}", ["a"] * 8) for i in range(6)]
    (plain,) = make_tasks("dev", "dev/many", several)
    (single,) = make_tasks("dev", "dev/one", several[:1])
    (rough,) = make_tasks("fewshot", "fewshot/rough", several[:4], loose=False)
    return [plain, single, rough]


def test_every_method_gets_every_task(tasks):
    lines = []
    records, left_out = run(tasks, [TruthTeller(), TruthTeller("no", refuse=True)], [1, 5], range(2), lines.append)
    assert left_out == ["dev/one:a, k = 5: too few examples."]
    assert len(records) == len(lines) == 2 * (2 * 2 + 2 * 2 + 1 * 2)
    first, refused = records[:2]
    assert (first["f1_50"], first["best_f1"], first["ap"], first["proposal_recall"]) == (1, 1, 1, 1)
    assert first["best_threshold"] == 0.9
    assert first["proposal_recall_by_size"] == first["recall_by_size"]
    assert (first["finds"], first["candidates"], first["objects"]) == (24, 27, 24)
    assert first["stage_seconds"] == {"look": 0.5}
    assert (refused["f1_50"], refused["recall_50"], refused["proposal_recall"]) == (0, 0, 0)
    assert "can be learned" in refused["error"]
    assert {r["f1_30"] for r in records if r["task"] == "fewshot/rough:a"} == {None}


def test_means_leave_out_single_frames_and_figures_that_make_no_sense(tasks):
    records, _ = run(tasks, [TruthTeller()], [1], [0], lambda line: None)
    records[0] |= {"f1_50": 0.4, "f1_30": 0.4}
    rows = {row["task"]: row for row in summarise(records)}
    assert rows["mean of 1: one frame"]["f1_50"] == 1
    overall = rows["MEAN of 2 (all but one frame)"]
    assert overall["f1_50"] == pytest.approx(0.7)
    assert overall["f1_30"] == pytest.approx(0.4)
    seconds = stage_means(records)["truth"]
    assert seconds["look"] == 0.5
    assert math.isfinite(seconds["learn"])


def test_the_table_says_how_methods_compare(tasks):
    methods = [TruthTeller("guided"), TruthTeller("grid"), TruthTeller("floor"), TruthTeller("no", refuse=True)]
    records, left_out = run(tasks, methods, [1, 5], [0], lambda line: None)
    facts = {"model": "m", "device": "d", "precision": "p", "torch": "t", "commit": "c", "date": "now", "points": 32}
    said = text({**facts, "seeds": [0], "frames": 2, "left_out": left_out, "warnings": ["Beware."]}, records)
    assert "k = 1 " in said
    assert "k = 5 " in said
    assert "grid with 32 points a side" in said
    assert "guided: F1 / own best 1.00, F1 / grid's best 1.00" in said
    assert "lowest F1 - floor's +0.00 (dev/many:a)" in said
    assert "no: F1 / own best –" in said
    for part in ("counted as nothing found", "too few examples", "Beware.", "look 0.50"):
        assert part in said


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_a_table_and_json(data, tmp_path, capsys):
    out = tmp_path / "out.json"
    words = ["--data", str(data), "--quick", "--k", "2", "--limit-frames", "1", "--device", "cpu", "--json", str(out)]
    assert main([*words, "--groups", "living", "long", "--methods", "floor", "oracle"]) == 0
    printed = capsys.readouterr()
    assert "fewshot/live_dead_cells:living" in printed.out
    assert "[2/2]" in printed.err
    facts = json.loads(out.read_text())
    assert facts["command"].startswith("python -m benchmarks.quality --data")
    assert {"date", "commit", "device", "model", "model_sha256", "torch", "numpy", "sam2"} <= set(facts)
    assert len(facts["records"]) == 4
    assert [r["f1_50"] for r in facts["records"] if r["method"] == "floor"] == [1, 0.75]  # dead look like living
    assert {row["level"] for row in facts["summary"]} == {"task", "family", "all"}
    assert not list(tmp_path.glob(".*.part"))


def test_the_command_lists_tasks(data, capsys):
    assert main(["--data", str(data), "--list", "--groups", "dev", "fewshot"]) == 0
    assert "dev/cells/long:object: one frame, 8 objects\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--groups", "unicorns"], "No task is called like unicorns"),
        (["--groups", "dev", "--data", "/nowhere/at/all"], "neither dev/ nor fewshot/"),
        (["--groups", "size:large", "--methods", "psychic"], "psychic"),
        (["--groups", "size:large", "--k", "500", "--methods", "floor"], "too few examples"),
    ],
)
def test_the_command_says_what_is_wrong(words, message, capsys):
    assert main([*words, "--device", "cpu"]) == 2
    assert message in capsys.readouterr().err


def test_counts_must_be_positive():
    with pytest.raises(SystemExit):
        main(["--k", "0"])
