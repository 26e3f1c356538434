"""What is the user's own is neither written over nor taken for something else; what is a run's own is."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from calls import calls_of
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.folder import OutputFolder
from sam2_fewshot.files.plan import make_plan
from sam2_fewshot.files.request import request_again
from sam2_fewshot.files.run import run
from sam2_fewshot.images.registry import signature
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.runner.progress import Watch
from sam2_fewshot.runner.run import run as run_ends
from sam2_fewshot.settings import Settings


@pytest.fixture
def dataset(tmp_path, images, examples):
    """A folder with images/ beside labels/, in which the examples of the first image are."""
    root = tmp_path / "dataset"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for image in images:
        shutil.copy(image, root / "images")
    Image.open(examples).save(root / "labels" / "im1.tif")
    return root


@pytest.fixture
def refused(request_for, segmenters):
    """Refuse a run before a model is loaded and anything is written."""

    def check(words, out, **changes):
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        with pytest.raises(InputError, match=words):
            run(request_for(out=out, **changes), None, segmenters)
        assert segmenters.made == []
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    return check


def test_results_do_not_replace_the_examples(dataset, refused):
    images, labels = [dataset / "images"], dataset / "labels"
    among = r"written into .*labels, where the examples of this run are, .* take them for examples\. Give another"
    refused(among, dataset, images=images, examples=labels)
    (labels / "im1.tif").rename(labels / "im1_labels.tif")  # nothing would be replaced, but be learned from
    refused(among, dataset, images=images, examples=labels)
    (labels / "im1_labels.tif").rename(labels / "im1.tif")
    over = r"written over .*im1\.tif, which is among the examples of this run\. Give another folder with -o\."
    refused(over, dataset, images=images, examples=labels / "im1.tif")
    link = dataset.with_name("link")
    link.symlink_to(dataset)
    refused(over, link, images=images, examples=labels / "im1.tif")


def test_results_do_not_replace_the_images(dataset, refused, examples):
    labels = dataset / "labels"
    refused(r"im1\.tif, which is among the images", dataset, images=[labels / "im1.tif"], examples=examples)
    (labels / "im1.tif").unlink()
    shutil.copy(dataset / "images" / "im1.png", labels)  # nothing would be replaced, but be searched the next time
    refused(r"labels, where the images of this run are", dataset, images=[labels], examples=examples)


def test_results_do_not_go_into_an_image(dataset, refused, examples):
    zarr = pytest.importorskip("zarr")
    image = dataset / "im1.zarr"
    group = zarr.open_group(image, mode="w", zarr_format=2)
    group.create_array("0", data=np.asarray(Image.open(dataset / "images" / "im1.png")))
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    scale = [{"type": "scale", "scale": [1, 1]}]
    level = {"path": "0", "coordinateTransformations": scale}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [level]}]
    refused(r"written into .*im1\.zarr, which is among the images", image, images=[image], examples=examples)


@pytest.mark.parametrize(
    "name", ["labels/im2.tif", "overlays/im2.png", "annotations.json", "corrections.json", "run.json", "coco.json"]
)
def test_files_of_the_user_are_not_replaced(name, tmp_path, refused):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    refused(f"{path.name} is there already, but not from an earlier run", tmp_path / "out", write=["coco"])
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["labels", "overlays", "rois"])
def test_results_do_not_go_through_a_link(name, tmp_path, request_for, segmenters):
    out = run(request_for(write=["roi"]), None, segmenters).out
    photos = tmp_path / "photos"
    photos.mkdir()
    users = [photos / f"{stem}{ending}" for stem in ("holiday", "im1") for ending in (".tif", ".png", ".zip")]
    for path in users:
        path.write_text("mine")
    facts = json.loads((out / "run.json").read_text())
    facts["frames"].append({**facts["frames"][0], "stem": "holiday", "overlay": "overlays/holiday.png"})
    (out / "run.json").write_text(json.dumps(facts))  # whoever made the link has edited it
    shutil.rmtree(out / name)
    (out / name).symlink_to(photos)
    words = rf"{name} is a link to .*photos, where .*\. Remove the link, and move .*; if .* another disk, give a folder"
    with pytest.raises(InputError, match=words):
        run(request_for(), None, segmenters)  # which would delete what is in a folder that it does not write into
    assert [path.read_text() for path in users] == ["mine"] * 6
    (out / name).unlink()
    link = tmp_path / "link"
    link.symlink_to(out)  # all results together may lie behind a link
    assert run(request_for(out=link, write=["roi"]), None, segmenters).complete


def test_links_where_no_result_goes_or_within_the_results_are_let_be(tmp_path, request_for, segmenters):
    out = tmp_path / "out"
    (out / "inner").mkdir(parents=True)
    (out / "zarr").symlink_to(tmp_path / "nowhere")
    (out / "labels").symlink_to(out / "inner")
    assert run(request_for(), None, segmenters).complete
    assert len(list((out / "inner").glob("*.tif"))) == 3


def test_files_of_other_images_and_formats_may_be_there(request_for, segmenters, tmp_path):
    users = [tmp_path / "out" / name for name in ("labels/other.tif", "geojson/im1.json", "coco.json", "notes.txt")]
    for path in users:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert run(request_for(), None, segmenters).complete
    assert [path.read_text() for path in users] == ["mine"] * 4
    with pytest.raises(InputError, match=r"coco\.json is there already"):  # also in the folder of an earlier run
        run(request_for(write=["coco"]), None, segmenters)


def test_results_of_earlier_runs_are_replaced(request_for, segmenters, images):
    out = run(request_for(images=images[:1], write=["coco"]), None, segmenters).out
    assert run(request_for(write=["coco", "roi"]), None, segmenters).complete
    shutil.rmtree(out / ".frames")  # as a copy without hidden files
    assert run(request_for(write=["coco"]), None, segmenters).complete
    (out / "run.json").unlink()  # as where the first run in a folder was killed while its files were put together
    assert run(request_for(), None, segmenters).complete
    (out / "run.json").unlink()
    inputs = out / ".frames" / "inputs.json"
    facts = json.loads(inputs.read_text())
    del facts["results"]  # as a version that did not note them
    inputs.write_text(json.dumps(facts))
    assert run(request_for(), None, segmenters).complete


@pytest.mark.parametrize("notes", ["damaged", "missing"])
def test_files_of_the_user_are_not_replaced_where_the_notes_are_lost(notes, request_for, segmenters, images):
    out = run(request_for(images=images[:2]), None, segmenters).out
    users, inputs = out / "labels" / "im10.tif", out / ".frames" / "inputs.json"
    users.write_text("mine")

    def lose():
        text = inputs.read_text()
        inputs.unlink()
        if notes == "damaged":
            inputs.write_text(text[:100])

    lose()
    assert run(request_for(images=images[:2]), None, segmenters).complete  # run.json lists what is a run's
    lose()
    with pytest.raises(InputError, match=r"im10\.tif is there already, but not from an earlier run"):
        run(request_for(), None, segmenters)
    assert users.read_text() == "mine"


def test_a_folder_that_is_called_as_a_result_is_refused(request_for, segmenters):
    (request_for().out / "run.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"run\.json is there already, but not from an earlier run .* Move it away"):
        run(request_for(), None, segmenters)
    with pytest.raises(InputError, match=r"holds no results: there is no run\.json in it"):
        read_finished(request_for().out)


def test_notes_that_cannot_be_read_refuse_a_run(request_for, segmenters):
    out = run(request_for(), None, segmenters).out
    inputs = out / ".frames" / "inputs.json"
    inputs.unlink()
    inputs.symlink_to(inputs)  # the system opens no such circle
    with pytest.raises(InputError, match=r"inputs\.json cannot be read: "):
        run(request_for(), None, segmenters)


class Stopped(OutputFolder):
    """An output folder of a run that is stopped when the overlay of its first frame was written."""

    def _write(self, record):
        assert list(self._out.glob("overlays/*"))
        raise KeyboardInterrupt


def test_a_run_that_was_stopped_within_its_first_frame_goes_on(request_for, segmenters, display):
    plan = make_plan(request_for(), display)
    segmenter = segmenters("filters", "cpu", plan.request.settings, display)
    folder = Stopped(plan, segmenter, display)
    assert run_ends(plan, folder, segmenter, Watch(display)).interrupted
    shutil.rmtree(plan.request.out / ".frames", ignore_errors=True)
    assert run(request_for(), None, segmenters).complete


def test_files_of_a_killed_run_stay_a_runs_own_where_the_next_was_stopped_at_once(request_for, segmenters, images):
    out = run(request_for(images=images[:2]), None, segmenters).out
    (out / "run.json").unlink()  # as where it was killed
    others = request_for(settings=Settings(smoothing=2))
    segmenters.troubles[1] = KeyboardInterrupt()
    assert run(others, None, segmenters).done == 0
    segmenters.troubles.clear()
    assert run(others, None, segmenters).complete


def warnings_of(display):
    return [line for line in display.lines if "Left out" in line]


def test_the_same_pattern_does_not_take_results_for_images(cli, dataset, examples):
    quick = ("--method", "grid", "--points-per-side", "16", "--model", "filters", "--device", "cpu")
    shutil.rmtree(dataset / "labels")
    command = ("segment", dataset / "**" / "*.png", "--examples", examples, "-o", dataset / "results", *quick)
    first = cli(*command)
    assert first.code == 0, first.err
    again = cli(*command)
    assert again.code == 0, again.err
    assert "3 of 3 frames are finished already and kept." in again.err
    left_out = "Left out of the images, because they are results of a run: im1.png, im2.png, im10.png."
    assert again.err.count("Left out") == again.err.count(left_out) == 1
    assert len(request_again(dataset / "results").images) == 3


def test_images_in_a_folder_called_as_one_of_results_stay_images(request_for, segmenters, display, images):
    root = images[0].parent / "mine"
    places = [root / "zarr" / images[0].name, root / "labels" / images[1].name]
    for place, image in zip(places, images, strict=False):
        place.parent.mkdir(parents=True)
        shutil.copy(image, place)
    request = request_for(images=places, out=root, examples_on="im1.png")
    run(request, display, segmenters)
    assert run(request, display, segmenters).resumed == 2
    assert warnings_of(display) == []
    stack = root / "overlays" / "im1_Z1_T2.png"  # of a plane of an image that was searched
    shutil.copy(images[0], stack)
    run(request_for(images=[*places, stack, root / "labels" / "im2.tif"], out=root), display, segmenters)
    assert [line.split(": ")[-1] for line in warnings_of(display)] == ["im1_Z1_T2.png, im2.tif."]


def test_an_output_folder_among_the_images_is_left_out(request_for, segmenters, display, images):
    folder = images[0].parent
    out = run(request_for(), None, segmenters).out
    run(request_for(images=[*images, out]), display, segmenters)
    assert warnings_of(display) == ["Warning: Left out of the images, because they are results of a run: out."]
    with pytest.raises(InputError, match=r"no image to search: out, overlays are results of a run\. Give the images\."):
        run(request_for(images=[out, out / "overlays"]), display, segmenters)
    run(request_for(images=[folder], out=folder), display, segmenters)
    assert run(request_for(images=[folder], out=folder), display, segmenters).resumed == 3  # images beside results


def test_a_folder_of_images_with_their_examples_is_searched(
    request_for, segmenters, display, tmp_path, images, examples
):
    days = [tmp_path / "day1", tmp_path / "day2"]
    for day in days:
        day.mkdir()
    shutil.copy(images[0], days[0])
    shutil.copy(examples, days[0])
    shutil.copy(images[1], days[1])
    summary = run(request_for(images=days, examples=days[0]), display, segmenters)
    assert [frame["image"] for frame in read_finished(summary.out).facts["frames"]] == ["im1.png", "im2.png"]
    assert warnings_of(display) == []


def test_a_folder_of_examples_alone_is_left_out(request_for, segmenters, display, images, examples):
    summary = run(request_for(images=[*images, examples.parent], examples=examples.parent), display, segmenters)
    assert summary.frames == 3
    assert warnings_of(display) == ["Warning: Left out of the images, because the examples are in it: marked."]


def test_label_images_that_a_pattern_has_caught_are_left_out(
    request_for, segmenters, display, tmp_path, images, examples
):
    names = ("im1.png", "im2.png", "im2_labels.png", "im3_labels.png")
    paths = [tmp_path / "plate" / name for name in names]
    paths[0].parent.mkdir()
    for source, path in zip([images[0], images[1], examples, images[2]], paths, strict=True):
        shutil.copy(source, path)
    summary = run(request_for(images=paths), display, segmenters)
    searched = [frame["image"] for frame in read_finished(summary.out).facts["frames"]]
    assert searched == ["im1.png", "im2.png", "im3_labels.png"]  # the last one is labels of nothing
    assert warnings_of(display) == [
        "Warning: Left out of the images, because by the name they are labels of another image: im2_labels.png."
    ]


def test_searched_images_are_no_truth(cli, request_for, segmenters, display, images, examples, tmp_path):
    out = run(request_for(), display, segmenters).out
    moved = tmp_path / "moved" / images[1].name
    moved.parent.mkdir()
    shutil.copy2(images[1], moved)
    for path in (images[0], moved):
        outcome = cli("evaluate", out, path)
        assert outcome.code == 2
        assert f"{path} is one of the images that were searched for {out}; give a label image" in outcome.err
    shutil.copy(examples, moved.with_name(f"{moved.stem}_labels.png"))
    shutil.copy2(images[2], moved.parent)  # of which the folder has no labels
    with calls_of(signature) as looked_at:
        outcome = cli("evaluate", out, moved.parent)
    assert len(looked_at) == 2  # not at the labels, whose name is none of the images'
    assert outcome.out.startswith("1 frame, 2 true objects")
    assert f"only {out} has them: im1, im10." in outcome.err
