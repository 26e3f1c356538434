"""What was learned, saved by one run and used by others, with the backbone without a network on small images."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tifffile import imwrite

from sam2_fewshot import FewShotSegmenter
from sam2_fewshot.errors import FewShotWarning, InputError
from sam2_fewshot.files.request import Request, request_again
from sam2_fewshot.files.run import run
from sam2_fewshot.object_model import read_object_model
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.runner.cluster import connected
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--method", "grid", "--points-per-side", "16", "--model", "filters", "--device", "cpu")


@pytest.fixture
def learned(cli, images, examples, tmp_path) -> Path:
    """A saved object model, and results that were made when it was learned."""
    path = tmp_path / "models" / "cells.npz"
    outcome = cli("segment", images[0], images[1], "--examples", examples, "-o", tmp_path / "first", *QUICK,
                  "--save-model", path)  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert f"saved in {path}; use it with --object-model" in outcome.err
    return path


def found(out: Path) -> list[Any]:
    rows = json.loads((out / "annotations.json").read_text())["annotations"]
    return [(row["coordinates"], row["location"]) for row in rows if row["kind"] == "found"]


def test_what_was_learned_finds_the_same_without_the_examples(cli, images, learned, tmp_path):
    assert [path.name for path in learned.parent.iterdir()] == ["cells.npz"]
    out = tmp_path / "again"
    command = ("segment", images[0], images[1], "--object-model", learned, "-o", out, "--points-per-side", "16")
    outcome = cli(*command)  # the method and the checkpoint are those of the model
    assert outcome.code == 0, outcome.err
    assert "Model filters on CPU" in outcome.err
    assert found(out) == found(tmp_path / "first")
    facts = json.loads((out / "run.json").read_text())
    assert facts["object_model"] == {"path": str(learned), "sha256": sha256(learned.read_bytes()).hexdigest()}
    assert facts["settings"]["method"] == "grid"
    assert facts["examples"] == 0
    assert facts["request"]["examples"] is None
    frame = facts["frames"][0]
    assert frame["examples"] == 0
    page = (out / "report.html").read_text()
    assert "Learned before, and kept in" in page
    assert "Learned from" not in page
    again = cli(*command)
    assert "2 of 2 frames are finished already and kept." in again.err
    threshold = cli("refine", out, "--similarity-threshold", "0.9")
    assert threshold.code == 0, threshold.err
    assert "2 of 2 frames are finished already and kept." in threshold.err
    assert facts["learned"].startswith("Compared with the others, the 2 examples")
    assert json.loads((out / "run.json").read_text())["learned"] == facts["learned"]


def test_images_are_displayed_as_those_of_the_examples_were(cli, images, examples, tmp_path):
    model = tmp_path / "bright.npz"
    display = ("--black-percentile", "5", "--white-percentile", "95")
    first = cli("segment", images[0], images[1], "--examples", examples, "-o", tmp_path / "first", *QUICK, *display,
                "--save-model", model)  # fmt: skip
    assert first.code == 0, first.err
    command = ("segment", images[0], images[1], "--object-model", model, "--points-per-side", "16")
    again = cli(*command, "-o", tmp_path / "again")
    assert again.code == 0, again.err
    assert found(tmp_path / "again") == found(tmp_path / "first")
    settings = json.loads((tmp_path / "again" / "run.json").read_text())["settings"]
    assert (settings["black_percentile"], settings["white_percentile"]) == (5, 95)
    assert "White Percentile 95.0, but the settings say 90.0" in refused(
        cli, tmp_path, *command[1:], "--white-percentile", "90"
    )


def test_a_model_of_a_version_that_displayed_colours_otherwise_is_told_where_there_are_some(
    cli, images, learned, tmp_path
):
    colour = tmp_path / "colour.png"
    Image.open(images[0]).convert("RGB").save(colour)
    command = ("segment", "--points-per-side", "16", "--object-model", learned)
    assert "Warning" not in cli(*command, colour, "-o", tmp_path / "now").err
    learned.write_bytes(replace(read_object_model(learned), version="").to_bytes())  # as up to 0.8.0
    assert "Warning" not in cli(*command, images[0], "-o", tmp_path / "grey").err
    outcome = cli(*command, colour, "-o", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "Warning: cells.npz was learned by version 0.8.0 or an earlier one." in outcome.err
    assert "learn again from the examples" in outcome.err
    with pytest.warns(FewShotWarning, match=r"cells\.npz was learned by version 0\.8\.0 or an earlier one"):
        FewShotSegmenter.load(learned)


@pytest.fixture
def of_channels(cli, images, examples, tmp_path) -> Path:
    """An object model learned from a channel whose image has another one, which is switched off."""
    plane = np.asarray(Image.open(images[0]))
    imwrite(tmp_path / "im.tif", np.stack([plane, plane[::-1, ::-1]]), imagej=True, metadata={"axes": "CYX"})
    (tmp_path / "first.yaml").write_text("- {index: 2, visible: false}")
    outcome = cli("segment", tmp_path / "im.tif", "--examples", examples, "--examples-on", "im.tif", *QUICK,
                  "--channels", tmp_path / "first.yaml", "--save-model", tmp_path / "one.npz",
                  "-o", tmp_path / "first")  # fmt: skip
    assert outcome.code == 0, outcome.err
    return tmp_path / "one.npz"


def test_channels_are_displayed_as_those_of_the_examples_were(cli, of_channels, tmp_path):
    command = ("segment", tmp_path / "im.tif", "--object-model", of_channels, "--points-per-side", "16")
    alike = tmp_path / "alike.yaml"
    alike.write_text("channels:\n- index: 2\n  visible: false\n")
    for name, channels in {"taken": (), "given": ("--channels", alike)}.items():
        outcome = cli(*command, *channels, "-o", tmp_path / name)
        assert outcome.code == 0, outcome.err
        assert "Warning" not in outcome.err
        assert found(tmp_path / name) == found(tmp_path / "first")
    other = tmp_path / "other.yaml"
    other.write_text("- {index: 1, visible: false}")
    outcome = cli(*command, "--channels", other, "-o", tmp_path / "other")
    assert outcome.code == 0, outcome.err
    assert "The channels are not displayed as those of the images from which one.npz was learned" in outcome.err


def test_a_display_that_does_not_fit_the_images_is_refused(cli, images, of_channels, tmp_path):
    sentence = refused(cli, tmp_path, images[1], "--object-model", of_channels)
    assert "im2.png has no channel 2" in sentence
    assert "taken from one.npz; give --channels" in sentence
    (tmp_path / "grey.yaml").write_text("- {index: 1}")
    out = tmp_path / "grey"
    outcome = cli("segment", images[1], "--object-model", of_channels, "--channels", tmp_path / "grey.yaml",
                  "--points-per-side", "16", "-o", out)  # fmt: skip
    assert outcome.code == 0, outcome.err


def test_the_examples_are_not_drawn(cli, images, learned, tmp_path):
    out = tmp_path / "again"
    strict = ("--similarity-threshold", "1.0", "--points-per-side", "16")
    assert cli("segment", images[0], "--object-model", learned, "-o", out, *strict).code == 0
    bare = np.asarray(Image.open(out / "overlays" / "im1.png").convert("RGB"))[:64, :64]
    assert np.ptp(bare.astype(int), axis=2).max() < 20  # nothing coloured lies on the grey image


def test_frames_are_done_anew_with_another_object_model(cli, images, examples, learned, tmp_path):
    command = ("segment", images[0], "--object-model", learned, "-o", tmp_path / "out", "--points-per-side", "16")
    assert cli(*command).code == 0
    before = learned.read_bytes()
    same = cli("segment", images[0], "--examples", examples, "-o", tmp_path / "x", *QUICK, "--save-model", learned)
    assert same.code == 0
    assert learned.read_bytes() == before  # the same examples give the same file
    assert "1 of 1 frames are finished already" in cli(*command).err
    labels = np.asarray(Image.open(examples)).copy()
    labels[labels == 2] = 0
    Image.fromarray(labels).save(examples)
    fewer = cli("segment", images[0], "--examples", examples, "-o", tmp_path / "y", *QUICK, "--save-model", learned)
    assert fewer.code == 0
    assert learned.read_bytes() != before
    other = cli(*command)
    assert "the object model changed" in other.err
    assert "finished already" not in other.err
    assert "Frame 1 of 1" in other.err


def test_the_path_of_the_checkpoint_is_asked_for_where_its_name_does_not_tell(cli, images, learned, tmp_path):
    objects = replace(read_object_model(learned), model_name="mine.pt", model_sha256="0123456789abcdef" * 4)
    learned.write_bytes(objects.to_bytes())
    sentence = refused(cli, tmp_path, images[0], "--object-model", learned)
    assert "cells.npz was learned with mine.pt (SHA-256 0123456789ab…)" in sentence
    assert "give its path with --model" in sentence
    with pytest.raises(InputError, match=r"cells\.npz was learned with mine\.pt .*give its path with model="):
        FewShotSegmenter.load(learned)


def test_a_device_is_not_waited_for(cli, images, tmp_path):
    assert f"{os.devnull} is not a file." in refused(cli, tmp_path, images[0], "--object-model", os.devnull)


def test_it_is_saved_also_where_all_frames_are_finished(cli, images, examples, tmp_path):
    command = ("segment", images[0], "--examples", examples, "-o", tmp_path / "out", *QUICK)
    assert cli(*command).code == 0
    outcome = cli(*command, "--save-model", tmp_path / "late.npz")
    assert outcome.code == 0, outcome.err
    assert "1 of 1 frames are finished already" in outcome.err
    assert (tmp_path / "late.npz").exists()


def test_other_arrays_are_not_written_over(cli, images, examples, tmp_path):
    np.savez(tmp_path / "mine.npz", measured=np.arange(3))
    sentence = refused(cli, tmp_path, images[0], "--examples", examples, "--save-model", tmp_path / "mine.npz")
    assert "mine.npz is there already and is no object model" in sentence


def refused(cli, tmp_path, *arguments: object) -> str:
    """Check that a command ends with one sentence, exit code 2 and nothing written; return the sentence."""
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    outcome = cli("segment", *arguments, "-o", tmp_path / "new" / "out")
    assert outcome.code == 2, outcome.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert "defect" not in outcome.err
    return str(outcome.err.splitlines()[-1])


def test_it_is_the_examples_or_the_object_model(cli, images, examples, learned, tmp_path):
    assert "give marked objects with --examples" in refused(cli, tmp_path, images[0])
    both = refused(cli, tmp_path, images[0], "--examples", examples, "--object-model", learned)
    assert "the one or the other" in both
    again = refused(cli, tmp_path, images[0], "--object-model", learned, "--save-model", tmp_path / "b.npz")
    assert "nothing to save" in again
    assert "Tags choose among examples" in refused(
        cli, tmp_path, images[0], "--object-model", learned, "--training-tag", "cell"
    )


def test_other_settings_or_weights_are_refused_with_the_reason(cli, images, learned, tmp_path):
    sentence = refused(cli, tmp_path, images[0], "--object-model", learned, "--method", "guided")
    assert "learned with Method grid, but the settings say guided; use grid" in sentence
    assert "Target Occupancy 0.2" in refused(
        cli, tmp_path, images[0], "--object-model", learned, "--target-occupancy", "0.3"
    )
    other = tmp_path / "other.npz"
    with np.load(learned) as archive:
        arrays = dict(archive)
    facts = json.loads(str(arrays["facts"]))
    facts["model_sha256"] = "00" * 32
    np.savez(other, **{**arrays, "facts": np.array(json.dumps(facts))})
    assert "learned with other weights" in refused(cli, tmp_path, images[0], "--object-model", other)


@pytest.mark.parametrize(
    "damage", ["missing", "folder", "text", "cut", "bits", "an image", "an array less", "a flat array"]
)
def test_a_damaged_object_model_is_refused_in_a_sentence(cli, images, learned, tmp_path, damage):
    path = tmp_path / "bad.npz"
    good = learned.read_bytes()
    if damage == "folder":
        path.mkdir()
    elif damage == "text":
        path.write_text("hello")
    elif damage == "cut":
        path.write_bytes(good[:-200])
    elif damage == "bits":
        path.write_bytes(good[:300] + bytes(byte ^ 255 for byte in good[300:400]) + good[400:])
    elif damage == "an image":
        shutil.copy(images[0], path)
    elif damage in ("an array less", "a flat array"):
        with np.load(learned) as archive:
            arrays = {**archive, "learned_left_out": archive["learned_left_out"].reshape(1, -1)}
        if damage == "an array less":
            del arrays["learned_left_out"]
        np.savez(path, **arrays)
    assert "bad.npz" in refused(cli, tmp_path, images[0], "--object-model", path)


@pytest.mark.parametrize("name", ["im1.png", "folder.npz", "im2.png/cells.npz"])
def test_a_bad_place_for_the_object_model_is_refused(cli, images, examples, tmp_path, name):
    (tmp_path / "folder.npz").mkdir()
    sentence = refused(cli, tmp_path, images[0], "--examples", examples, "--save-model", tmp_path / name)
    assert "--save-model" in sentence
    assert "object model" in sentence


def test_corrections_need_the_examples(cli, images, examples, learned, tmp_path):
    out = tmp_path / "again"
    command = ("segment", images[0], "--object-model", learned, "-o", out, "--points-per-side", "16")
    assert cli(*command).code == 0
    rows = json.loads((out / "annotations.json").read_text())["annotations"]
    marked = [{**row, "tags": ["right"], "image": "im1.png"} for row in rows[:1]]
    (tmp_path / "corrections.json").write_text(
        json.dumps({"annotations": marked, "sam2-fewshot": {"kind": "corrections", "version": 1}})
    )
    alone = cli("refine", out, tmp_path / "corrections.json")
    assert alone.code == 2
    assert "give these with --examples" in alone.err
    assert request_again(out).object_model == learned
    together = cli("refine", out, tmp_path / "corrections.json", "--examples", examples)
    assert together.code == 0, together.err


def test_examples_in_place_of_an_object_model_need_its_display(cli, examples, of_channels, tmp_path):
    out = tmp_path / "taken"
    outcome = cli("segment", tmp_path / "im.tif", "--object-model", of_channels, "--points-per-side", "16", "-o", out)
    assert outcome.code == 0, outcome.err
    command = ("refine", out, "--max-examples", "9", "--examples", examples, "--examples-on", "im.tif")
    alone = cli(*command)
    assert alone.code == 2
    assert "one.npz, which says how channels are displayed; examples do not. Give the file" in alone.err
    together = cli(*command, "--channels", tmp_path / "first.yaml")
    assert together.code == 0, together.err
    assert found(tmp_path / "taken-refined") == found(out)
    of_channels.unlink()
    assert cli(*command, "-o", tmp_path / "gone").code == 0
    assert found(tmp_path / "gone") != found(out)


def test_examples_for_corrections_are_read_as_they_are_said_to_be(cli, images, examples, learned, tmp_path):
    out = tmp_path / "again"
    assert cli("segment", images[0], "--object-model", learned, "-o", out, "--points-per-side", "16").code == 0
    examples.with_name(f"{examples.stem}_classes.json").write_text(json.dumps({"1": "disc", "2": "debris"}))
    command = ("refine", out, "--similarity-threshold", "0.6", "-o", tmp_path / "refined")
    tags = ("--training-tag", "disc", "--negative-tag", "debris")
    outcome = cli(*command, "--examples", examples, *tags, "--boxes")
    assert outcome.code == 0, outcome.err
    facts = json.loads((tmp_path / "refined" / "run.json").read_text())
    (record,) = read_finished(tmp_path / "refined").records()
    assert [mark.negative for mark in record.examples] == [False, True]
    assert [facts["request"][name] for name in ("training_tag", "negative_tag", "boxes")] == ["disc", "debris", True]
    again = request_again(tmp_path / "refined")  # what is not said a second time stays
    assert (again.training_tag, again.negative_tag, again.boxes) == ("disc", "debris", True)
    for option in (tags[:2], tags[2:], ("--boxes",)):
        outcome = cli(*command, *option)
        assert outcome.code == 2
        assert f"{option[0]} says how the examples are to be read, and without --examples" in outcome.err


@pytest.mark.filterwarnings("default")  # of Dask and its event loop
def test_workers_use_the_object_model(learned, images, display, tmp_path):
    import distributed

    settings = Settings(method="grid", points_per_side=16)
    request = Request(
        images=images[:2], examples=None, out=tmp_path / "shared", settings=settings, device="cpu", object_model=learned
    )
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", protocol="inproc://"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        connected(client, settings) as (same, _),
    ):
        summary = run(request, display, scheduler=same)
    assert summary.complete
    assert found(tmp_path / "shared") == found(tmp_path / "first")
