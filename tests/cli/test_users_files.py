"""What is the user's own is neither written over nor taken for something else; what is a run's own is."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sam2_fewshot.errors import InputError
from sam2_fewshot.files.folder import OutputFolder
from sam2_fewshot.files.plan import make_plan
from sam2_fewshot.files.run import run
from sam2_fewshot.runner.progress import Watch
from sam2_fewshot.runner.run import run as run_ends


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
