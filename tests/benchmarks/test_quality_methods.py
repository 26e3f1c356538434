"""The methods that are compared, the floor and the oracle among them."""

import numpy as np
import pytest
from benchmarks.quality.floor import OtsuFloor
from benchmarks.quality.methods import EVERYTHING, FewShot, Told, make_method
from benchmarks.quality.oracle import click, interior_point
from benchmarks.quality.tasks import (
    Picture,
    Query,
    make_tasks,
)
from quality_world import picture

from sam2_fewshot.annotations.arrays import masks_of
from sam2_fewshot.backbones import open_backbone
from sam2_fewshot.errors import SettingsError
from sam2_fewshot.evaluation.figures import EvaluatedFrame
from sam2_fewshot.geometry.overlap import mask_iou
from sam2_fewshot.records import InstanceMask
from sam2_fewshot.settings import Settings


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("colour", [False, True])
def test_the_floor_finds_what_lies_on_the_side_of_the_examples(discs, dark, colour):
    image, labels = discs
    image = 255 - image if dark else image
    frame = Picture("p", image if colour else image[..., 0], labels, dict.fromkeys(range(1, 9), "disc"))
    (task,) = make_tasks("dev", "g", [frame])
    floor = OtsuFloor(task.episode(2, 0).examples)
    assert floor.bright is not dark
    found = EvaluatedFrame("", floor.find(frame.image), frame.of("disc")).match(0.5).scores
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
    assert EvaluatedFrame("", floor.find(image), frame.of("a")).match(0.5).scores.f1 == 1


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
    truth = [*dict(masks_of(labels)).values()]
    found = click(micro, image, truth, zoom=zoom)
    assert len(found) == len(truth)
    ious = [mask_iou(a, b) for a, b in zip(found, truth, strict=True)]
    assert np.mean([iou >= 0.5 for iou in ious]) >= 0.75
    assert click(micro, image, [], zoom=zoom) == []


def disc_query(discs):
    image, labels = discs
    return Query(
        Picture("discs", image, labels, dict.fromkeys(range(1, 9), "disc")), [*dict(masks_of(labels)).values()], []
    )


def upside_down(discs):
    image, labels = discs
    return Picture("discs", np.ascontiguousarray(image[::-1]), labels[::-1], dict.fromkeys(range(1, 9), "disc"))


def disc_episode(discs, count=2):
    (task,) = make_tasks("dev", "g", [upside_down(discs), disc_query(discs).picture])
    return task.episode(count, 0)


@pytest.fixture
def filters():
    return open_backbone("filters", "cpu", Settings())


def test_one_run_of_grid_gives_what_two_runs_give(filters, discs):
    values = {"points_per_side": 32, "similarity_threshold": 0.96}
    told = Told()
    settings = Settings(method="grid", **values, max_examples=1)
    two = FewShot(filters, "x", settings, settings.changed(EVERYTHING), told=told)
    one = make_method("grid:" + ",".join(f"{k}={v}" for k, v in values.items()) + ",max_examples=1", filters, 99, told)
    two.learn(disc_episode(discs))
    one.learn(disc_episode(discs))
    picture = upside_down(discs)  # with the example on it, which is proposed and not detected
    query = Query(picture, [*dict(masks_of(picture.labels)).values()], [])
    first, second = two.find(query), one.find(query)
    assert 0 < len(first.kept) < len(first.everything)
    for of_one, of_two in ((second.kept, first.kept), (second.everything, first.everything)):
        assert [f.score for f in of_one] == [f.score for f in of_two]
        assert [f.mask.box for f in of_one] == [f.mask.box for f in of_two]
    assert len(first.proposed) > len(first.everything)
    assert set(first.seconds) == {"encode", "propose", "compare", "outline"}
    assert len(told.warnings) == 1
    assert "Max Examples" in next(iter(told.warnings))


def test_one_run_of_guided_gives_what_two_runs_give(filters, discs):
    told, settings = Told(), Settings(method="guided")
    one = make_method("guided", filters, 99, told)
    two = FewShot(filters, "x", settings, settings.changed(EVERYTHING), told=told)
    outcomes = []
    for method in (one, two):
        method.learn(disc_episode(discs, 5))  # so many are learned from as they are
        outcomes.append(method.find(disc_query(discs)))
    assert (len(one._runs()), len(two._runs())) == (1, 2)
    first, second = ([(f.score, f.mask.box) for f in outcome.kept] for outcome in outcomes)
    assert first == second
    assert 0 < len(first) <= len(outcomes[0].everything)


@pytest.mark.parametrize("spec", ["guided:threshold_mode=auto", "guided:threshold_mode=otsu"])
def test_a_threshold_from_the_finds_takes_a_run_of_its_own(micro, spec):
    assert len(make_method(spec, micro, 99, Told())._runs()) == 2


def test_settings_for_the_run_that_keeps_everything(micro):
    method = make_method("grid:box_nms_iou=0.6,all.box_nms_iou=0.5", micro, 99, Told())
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
