"""A second run of the job: what is kept, what is done anew, and which files go."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from bright import BrightMaker
from sam2_fewshot.errors import InputError
from sam2_fewshot.files.request import request_again
from sam2_fewshot.files.run import run
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.records import Exemplar
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.digests import common_part


def test_second_run_does_nothing(request_for, segmenters, display):
    run(request_for(), None, segmenters)
    stamp = (request_for().out / ".frames").stat().st_mtime_ns
    before = {path.name: path.read_bytes() for path in (request_for().out / "labels").iterdir()}
    summary = run(request_for(), display, segmenters)
    assert summary.resumed == summary.done == 3
    assert segmenters.calls == []
    assert segmenters.made[-1].fitted == 0
    assert "3 of 3 frames are finished already and kept." in display.lines
    assert summary.found == 10
    assert before == {path.name: path.read_bytes() for path in (request_for().out / "labels").iterdir()}
    assert stamp  # the folder was there before


def test_no_other_run_changes_what_is_finished_while_one_learns(request_for, segmenters, images):
    assert run(request_for(images=images[:1]), None, segmenters).complete
    refused = []

    def meanwhile():
        with pytest.raises(InputError, match="Another run is at work") as caught:
            run(request_for(settings=Settings(smoothing=2)), None, segmenters)
        refused.append(caught.value)

    summary = run(request_for(settings=Settings(cache_size=0)), None, BrightMaker({"on_learn": meanwhile}))
    assert (summary.complete, summary.resumed, summary.done, len(refused)) == (True, 1, 3, 1)
    assert run(request_for(settings=Settings(smoothing=2)), None, segmenters).complete  # the folder is free again


@pytest.mark.parametrize("trouble", [InputError("Nothing can be learned."), KeyboardInterrupt(), ZeroDivisionError()])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_run_that_ends_while_it_learns_leaves_nothing_and_lets_others_in(
    trouble, is_there, request_for, segmenters, tmp_path
):
    out = tmp_path / "results" / "today"
    if is_there:
        out.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    request = request_for(out=out, settings=Settings(cache_size=0))

    def fail():
        raise trouble

    with pytest.raises(type(trouble)):
        run(request, None, BrightMaker({"on_learn": fail}))
    assert sorted(tmp_path.rglob("*")) == before
    assert run(request, None, segmenters).complete


@pytest.mark.parametrize(
    "change",
    [
        {"settings": Settings(min_mask_area=31)},
        {"settings": Settings(white_percentile=99)},
    ],
)
def test_changed_setting_redoes(request_for, segmenters, display, change):
    run(request_for(), None, segmenters)
    summary = run(request_for(**change), display, segmenters)
    assert (summary.resumed, len(segmenters.calls)) == (0, 3)
    assert any("other settings or inputs; they are replaced" in line for line in display.lines)


def test_memory_settings_and_tags_do_not_redo(request_for, segmenters):
    run(request_for(), None, segmenters)
    summary = run(request_for(settings=Settings(batch_size=3, points_per_batch=5), tags=["a"]), None, segmenters)
    assert summary.resumed == 3
    assert json.loads((summary.out / "annotations.json").read_text())["annotations"][0]["tags"] == ["a"]


def test_changed_examples_redo(request_for, segmenters, examples):
    run(request_for(), None, segmenters)
    labels = np.array(Image.open(examples))
    labels[22, 14] = 1
    Image.fromarray(labels).save(examples)
    assert run(request_for(), None, segmenters).resumed == 0


def features(point: float) -> str:
    ring = [[7, 7], [21, 7], [21, 21], [7, 21], [7, 7]]
    geometries = [{"type": "Polygon", "coordinates": [ring]}, {"type": "Point", "coordinates": [point, 14.5]}]
    return json.dumps(
        {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "geometry": item, "properties": {}} for item in geometries],
        }
    )


def test_outlines_and_points_as_examples(request_for, segmenters, tmp_path):
    path = tmp_path / "im1.geojson"
    path.write_text(features(48.5))
    summary = run(request_for(examples=path), None, segmenters)
    assert segmenters.made[0].fitted == 2
    marks = next(summary.records()).examples
    assert [mark.outline.geom_type for mark in marks] == ["Polygon", "Point"]
    assert run(request_for(examples=path), None, segmenters).resumed == 3
    path.write_text(features(48.6))
    assert run(request_for(examples=path), None, segmenters).resumed == 0


def test_the_fingerprint_tells_masks_apart():
    masks = [np.eye(4, 5) > 0, np.eye(4, 6) > 0, np.eye(4, 5, 1) > 0]
    prints = {
        common_part("1", Settings(), "m", [(Exemplar(image=mask, mask=mask, negative=negative), "a.png")], {})
        for mask in masks
        for negative in (False, True)
    }
    assert len(prints) == 6


def test_changed_channels_redo(request_for, segmenters, tmp_path):
    run(request_for(), None, segmenters)
    channels = tmp_path / "channels.yaml"
    channels.write_text("- index: 1\n  color: white\n")
    assert run(request_for(channels=channels), None, segmenters).resumed == 0


def test_only_a_changed_image_is_redone(request_for, segmenters, images):
    run(request_for(), None, segmenters)
    square = np.zeros((64, 64), np.uint8)
    square[20:30, 20:30] = 1
    Image.fromarray(square).save(images[2])
    summary = run(request_for(), None, segmenters)
    assert segmenters.calls == ["im10.png"]
    assert summary.found == 7  # two beside the two examples, four, and one


def test_an_added_image_keeps_the_others(request_for, segmenters, images):
    run(request_for(images=images[:2]), None, segmenters)
    summary = run(request_for(), None, segmenters)
    assert segmenters.calls == ["im10.png"]
    assert summary.found == 10


def test_files_of_images_no_longer_asked_for_go(request_for, segmenters, images):
    out = run(request_for(), None, segmenters).out
    (out / "notes.txt").write_text("the user's own")
    run(request_for(images=images[:2]), None, segmenters)
    for folder, ending in (("overlays", "png"), ("labels", "tif"), ("geojson", "geojson")):
        assert sorted(path.name for path in (out / folder).iterdir()) == [f"im1.{ending}", f"im2.{ending}"]
    assert (out / "notes.txt").exists()


def test_files_of_an_image_that_was_renamed_in_letter_case_go(request_for, segmenters, images):
    run(request_for(write=("zarr",)), None, segmenters)
    renamed = images[1].rename(images[1].with_name("IM2.png"))
    summary = run(request_for(images=[images[0], renamed, images[2]], write=("zarr",)), None, segmenters)
    for folder in ("labels", "geojson", "overlays", "zarr"):
        stems = sorted(path.stem.casefold() for path in (summary.out / folder).iterdir())
        assert stems == ["im1", "im10", "im2"], folder
    assert tifffile.imread(summary.out / "labels" / "IM2.tif").max() == 4


def test_hostile_run_file_deletes_nothing(request_for, segmenters, tmp_path):
    precious = tmp_path / "precious.tif"
    precious.write_text("x")
    out = run(request_for(), None, segmenters).out
    for content in ('{"frames": [{"stem": "../../precious", "z": 1, "time": 1}]}', "[]", "{", '{"frames": [1]}'):
        (out / "run.json").write_text(content)
        assert run(request_for(), None, segmenters).complete
    assert precious.exists()


def test_names_in_a_run_file_lead_to_nothing_else(request_for, segmenters, tmp_path):
    out = run(request_for(), None, segmenters).out
    users = [tmp_path / "precious.tif", out / "notes" / "day1.txt"]
    for path in users:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    facts = json.loads((out / "run.json").read_text())
    facts["frames"][0] |= {"stem": "../../precious", "overlay": ".."}
    (out / "run.json").write_text(json.dumps(facts))
    assert run(request_for(), None, segmenters).complete
    assert all(path.exists() for path in users)


def test_a_record_whose_objects_no_run_writes_stops_the_same_command_once(request_for, segmenters, display):
    found = run(request_for(), None, segmenters).found
    path = min((request_for().out / ".frames").glob("*.npz"))
    with np.load(path) as archive:
        members = dict(archive)
    members["figures"][0, 1] = np.inf
    np.savez_compressed(path, **members)
    stopped = run(request_for(), None, segmenters)
    assert not stopped.complete
    assert "holds no whole record of im" in stopped.failures[0].sentence
    again = run(request_for(), None, segmenters)
    assert (again.resumed, again.found, again.complete) == (2, found, True)


def test_missing_overlay_is_drawn_again(request_for, segmenters):
    out = run(request_for(), None, segmenters).out
    (out / "overlays" / "im2.png").unlink()
    assert run(request_for(), None, segmenters).resumed == 3
    assert (out / "overlays" / "im2.png").exists()


def test_pictures_that_are_links_are_drawn_again(request_for, segmenters, tmp_path):
    out = run(request_for(), None, segmenters).out
    users = tmp_path / "users.jpg"
    pictures = sorted((out / ".frames").glob("*.jpg"))
    pictures[0].rename(users)
    users.write_bytes(users.read_bytes() + b"mine")
    pictures[0].symlink_to(users)
    again = request_again(out)
    for request in (replace(again, out=tmp_path / "other"), replace(again, out=out)):
        assert run(request, None, segmenters).resumed == 3
        drawn = request.out / ".frames" / pictures[0].name
        assert not drawn.is_symlink()
        assert not drawn.read_bytes().endswith(b"mine")
    assert users.read_bytes().endswith(b"mine")


def overlays(out):
    return {path.name: path.read_bytes() for path in (out / "overlays").iterdir()}


def test_the_overlay_is_that_of_an_image_that_was_put_back(request_for, segmenters, images, tmp_path):
    out = run(request_for(), None, segmenters).out
    before, kept = overlays(out), shutil.copy2(images[1], tmp_path / "kept.png")
    Image.fromarray(np.eye(64, dtype=np.uint8) * 90).save(images[1])
    run(request_for(), None, segmenters)
    assert overlays(out) != before
    shutil.copy2(kept, images[1])
    assert run(request_for(), None, segmenters).complete
    assert overlays(out) == before


def test_the_overlay_is_that_of_the_image_of_its_name(request_for, segmenters, images, tmp_path):
    paths = [tmp_path / day / "im.png" for day in ("day1", "day2")]
    for path, image in zip(paths, images[1:], strict=True):
        path.parent.mkdir()
        shutil.copy2(image, path)
    alike = [request_for(images=[images[0], path]) for path in paths]
    out = run(alike[0], None, segmenters).out
    before = overlays(out)
    run(alike[1], None, segmenters)
    assert overlays(out) != before
    run(alike[0], None, segmenters)
    assert overlays(out) == before


def test_overlays_are_those_of_the_settings_after_others_were_tried(request_for, segmenters):
    out = run(request_for(), None, segmenters).out
    before = overlays(out)
    segmenters.troubles[2] = KeyboardInterrupt()
    assert run(request_for(settings=Settings(min_mask_area=200)), None, segmenters).interrupted
    assert overlays(out)["im1.png"] != before["im1.png"]
    segmenters.troubles.clear()
    assert run(request_for(), None, segmenters).resumed == 3
    assert overlays(out) == before


class Doubtful(BrightMaker):
    """Makes segmenters that warn when they learn."""

    def __call__(self, model, device, settings, progress):
        self.bright["on_learn"] = lambda: progress.warn(f"One is dim, of {settings.min_mask_area} px or more.")
        return super().__call__(model, device, settings, progress)


def test_what_was_said_of_the_examples_stays_where_they_are_not_learned_again(request_for, display, tmp_path):
    segmenters = Doubtful({"finds_examples": False})

    def said(threshold=0.5, least=30, **changes):
        settings = Settings(cache_size=0, similarity_threshold=threshold, min_mask_area=least)
        out = run(request_for(settings=settings, **changes), display, segmenters).out
        assert "The examples are bright." in (out / "report.html").read_text()
        facts = read_finished(out).facts
        assert facts["learned"] == "The examples are bright."
        (warning,) = (each for each in facts["warnings"] if "dim" in each)
        return warning, segmenters.made[-1].bright.learned

    first, other = "One is dim, of 30 px or more.", "One is dim, of 31 px or more."
    assert said() == (first, 1)
    before = (tmp_path / "out" / "run.json").read_bytes()
    assert said() == said(0.4) == said(out=tmp_path / "other", earlier=tmp_path / "out") == (first, 0)
    assert said(save_model=tmp_path / "saved.npz") == (first, 1)
    assert said(least=31) == (other, 1)
    (tmp_path / "out" / "run.json").write_bytes(before)  # as where it was killed before this was written
    assert said(least=31) == (other, 0)
