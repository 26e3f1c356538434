"""What the report holds, read without a browser."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely import Point, Polygon, box

from sam2_fewshot.errors import InputError
from sam2_fewshot.output.finished import read_finished
from sam2_fewshot.output.pictures import preview_jpeg, read_preview
from sam2_fewshot.report.advice import FrameFigures, overview
from sam2_fewshot.report.content import UNITS, _similar, encode_outlines, gather
from sam2_fewshot.report.looks import Looks, looks_of
from sam2_fewshot.report.page import REPORT, write_report
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def decode(packed: bytes) -> list[list[tuple[float, float]]]:
    """The other way round, as plainly as it goes."""
    values, value, bits = [], 0, 0
    for byte in packed:
        value |= (byte & 127) << bits
        bits += 7
        if byte < 128:
            values.append(value)
            value = bits = 0
    outlines, at = [], 0
    while at < len(values):
        count, at = values[at], at + 1
        steps = [v // 2 if v % 2 == 0 else -(v + 1) // 2 for v in values[at : at + 2 * count]]
        at += 2 * count
        outlines.append([tuple(p / UNITS) for p in np.cumsum(np.reshape(steps, (-1, 2)), axis=0)])
    return outlines


coordinates = st.integers(-200, 40_000).map(lambda v: v / 2)


@given(st.lists(st.tuples(coordinates, coordinates), max_size=20))
def test_points_come_back(points: list[tuple[float, float]]) -> None:
    assert decode(encode_outlines([Point(p) for p in points], 1.0)) == [[p] for p in points]


def test_outlines_come_back_without_their_last_vertex() -> None:
    square, triangle = Polygon([(1.5, 2), (11.5, 2), (11.5, 12), (1.5, 12)]), Polygon([(900, 0), (0, 5000), (9, 9)])
    first, point, second = decode(encode_outlines([square, Point(3, 4), triangle], 1.0))
    assert sorted(first) == [(1.5, 2), (1.5, 12), (11.5, 2), (11.5, 12)]
    assert point == [(3, 4)]
    assert len(second) == 3
    (half,) = decode(encode_outlines([square], 0.5))
    assert max(half) == (5.75, 6)
    assert encode_outlines([], 1.0) == b""


def block(page: str, name: str) -> bytes:
    found = re.search(f'<script type="text/plain" id="block-{name}">([^<]*)</script>', page)
    assert found
    return base64.b64decode(found[1])


def data_of(path: Path) -> dict[str, Any]:
    found = re.search('<script type="application/json" id="data">([^<]*)</script>', path.read_text("utf-8"))
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_the_page_holds_everything(make_out: Callable[..., Path]) -> None:
    out = make_out()
    page = write_report(out).read_text("utf-8")
    assert [path.name for path in out.glob("*.html")] == [REPORT]
    scores = np.frombuffer(block(page, "scores"), "<f8")
    assert scores.tolist() == 2 * [0.95, 0.9, 0.8, 0.62, 0.55, 0.5, 0.45, 0.3, 0.1]
    assert np.frombuffer(block(page, "areas"), "<u4")[:2].tolist() == [113, 149]
    assert len(decode(block(page, "outlines"))) == 18
    assert len(decode(block(page, "marks"))) == 6
    data = json.loads(re.search('id="data">([^<]*)</script>', page)[1])  # type: ignore[index]
    assert (data["threshold"], data["floor"], data["range"]) == (0.5, 0.05, [0.1, 0.95])
    assert data["frames"][1]["marks"] == [False, True, False]
    assert data["exampleAreas"] == [252, 252]
    assert data["similarAreas"] == [100, 630]
    assert "12 objects found on 2 frames" in page
    assert "4.0 s" in page  # encoding, of both frames
    assert "Licence of the model" in page
    assert "sha256-" in page
    assert "Points per side" in page
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)", page), "something is loaded from elsewhere"


def test_a_missing_picture_does_no_harm(make_out: Callable[..., Path]) -> None:
    out = make_out()
    for path in (out / ".frames").glob("*.jpg"):
        path.unlink()
    assert 'id="picture-1"></script>' in write_report(out).read_text("utf-8")


def test_only_pictures_of_the_run_are_shown(make_out: Callable[..., Path], tmp_path: Path) -> None:
    out = make_out()
    first, second = sorted((out / ".frames").glob("*.jpg"))
    shown = gather(read_finished(out)).pictures
    users = tmp_path / "users.jpg"
    first.replace(users)
    first.symlink_to(users)
    second.write_bytes(b"secret")
    assert all(shown)
    for picture_bytes in (40_000_000, 10):
        assert gather(read_finished(out), picture_bytes=picture_bytes).pictures == ["", ""]
    assert np.isnan(looks_of([box(0, 0, 9, 9)], first, 1.0).brightness).all()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_the_place_of_a_picture_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert read_preview(tmp_path / "a.jpg") == b""


def test_pictures_of_very_many_frames_are_shrunk(make_out: Callable[..., Path]) -> None:
    from io import BytesIO

    from PIL import Image

    packed = gather(read_finished(make_out()), picture_bytes=2000, smallest=100).pictures
    with Image.open(BytesIO(base64.b64decode(packed[0]))) as picture:
        assert 100 <= picture.width < 300
        assert picture.width / picture.height == pytest.approx(400 / 120, rel=0.05)


def test_long_times_are_told_in_minutes(make_out: Callable[..., Path]) -> None:
    page = write_report(make_out(facts={"seconds": {"learn examples": 200.0, "load model": 7400.0}})).read_text("utf-8")
    assert "3 min 20 s" in page
    assert "2 h 03 min" in page


def test_frames_not_done_are_told(make_out: Callable[..., Path]) -> None:
    out = make_out(facts={"corrections": 1})
    facts = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**facts, "frames_asked": 5, "warnings": ["It is <dark>."]}))
    page = write_report(out).read_text("utf-8")
    assert "3 of 5 frames are not done yet" in page
    assert "and 1 correction with" in page
    assert "It is &lt;dark&gt;." in page


def test_how_well_the_examples_are_found_again_is_told(make_out: Callable[..., Path]) -> None:
    sentence = "Left out in turn, 9 of the 10 examples are found again at the default threshold; <16> places score so."
    page = write_report(make_out(facts={"learned": sentence})).read_text("utf-8")
    lead = page.split('<p class="lead">')[1].split("</p>")[0]
    assert lead.endswith(f"with m.pt. {sentence.replace('<', '&lt;').replace('>', '&gt;')}")
    for number, facts in enumerate(({}, {"learned": ""})):  # older results, and a run that searched nothing
        page = write_report(make_out(facts=facts, folder=f"without{number}")).read_text("utf-8")
        assert page.split('<p class="lead">')[1].split("</p>")[0].endswith("with m.pt.")


def test_stacks_name_their_planes(make_out: Callable[..., Path]) -> None:
    from sam2_fewshot.output.finished import read_finished
    from sam2_fewshot.report.content import _frame

    record = next(read_finished(make_out()).records())
    assert _frame(replace(record, size_z=3, size_t=2), 1.0)["name"] == "a.tif Z 1 Time 1"


def test_what_is_no_output_folder_is_refused(tmp_path: Path, make_out: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"holds no results: there is no run\.json"):
        write_report(tmp_path)
    for content in ("[]", "{", '{"frames": [{}]}', '{"frames": [{"xy": "1"}]}'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(InputError, match="damaged"):
            write_report(tmp_path)
    out = make_out()
    facts = json.loads((out / "run.json").read_text())
    for change in (
        {"settings": {}},
        {"settings": {**facts["settings"], "min_mask_area": "x"}},
        {"model": "m"},
        {"frames": [{**facts["frames"][0], "record": 3}]},
        {"seconds": {"a": "b"}},
        {"frames": [{**facts["frames"][0], "seconds": 3}]},
        {"frames": [{**facts["frames"][0], "image": 3}]},
        {"mark_next": 3},
        {"images": [{"place": "in/im1.png", "position": "", "content": "", "searched": "yes"}]},
        {"images": [{"place": "in/im1.png"}]},
        {"mark_next": [{**facts["mark_next"][0], "number": "1"}]},
    ):
        (out / "run.json").write_text(json.dumps({**facts, **change}))
        with pytest.raises(InputError, match="damaged"):
            write_report(out)
    (out / "run.json").write_text(json.dumps(facts))
    (next((out / ".frames").glob("*.npz"))).unlink()
    with pytest.raises(InputError, match=r"no whole record of [ab]\.tif"):
        write_report(out)


def test_frames_of_another_run_are_noticed(make_out: Callable[..., Path]) -> None:
    out = make_out()
    facts = json.loads((out / "run.json").read_text())
    facts["frames"][0]["seconds"]["encode"] += 1e-9
    (out / "run.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"no whole record of a\.tif"):
        write_report(out)


def figures(
    name: str = "a", scores: Sequence[float] = (), below: Sequence[float] = (), examples: int = 8
) -> FrameFigures:
    return FrameFigures(name, np.array(scores), np.array(below), 0.5, np.full(len(scores), 50), examples, 0)


def test_the_summary_counts() -> None:
    found = overview([figures(scores=[0.95, 0.9, 0.55], below=[0.45, 0.05], examples=6)])
    assert (found.found, found.clear, found.doubtful, found.missed) == (3, 2, 1, 1)
    assert found.margin == pytest.approx(0.09)
    assert found.median_area == 50


@pytest.mark.parametrize(
    ("scores", "below", "margin"),
    [
        ((0.95, 0.5), (0.05,), "0.09"),
        ((0.88, 0.76), (), "0.012"),
        ((0.815, 0.801), (), "0.001"),
        ((0.8,), (), "0.001"),
    ],
)
def test_the_cards_say_what_is_doubtful_however_close_scores_are(
    make_out: Callable[..., Path], scores: Sequence[float], below: Sequence[float], margin: str
) -> None:
    page = write_report(make_out(["a.tif"], scores, below)).read_text()
    for note in (f"{margin}+ above the threshold", f"less than {margin} above it", f"less than {margin} below it"):
        assert f">{note}<" in page


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([figures(scores=[0.9] * 9)], "Most detections are far above"),
        ([figures()], "Nothing that resembles"),
        ([figures(below=[0.41, 0.2])], "The best candidate has 0.41"),
        ([figures(scores=[0.9], below=[0.1], examples=1)], "Only 1 example on these frames"),
        ([figures(scores=[0.9, 0.52], below=[0.1])], "1 detection just above the threshold and 0 candidates"),
        ([figures(scores=[0.9] * 5, below=[0.48] * 4)], "0 detections just above the threshold and 4 candidates"),
        (
            [replace(figures(below=[0.3]), threshold=0.4), figures(below=[0.2])],
            "Nothing reached the threshold of 0.4. The best candidate has 0.30",
        ),
        ([figures(scores=[0.9], below=[0.1]), figures("b.tif")], "Nothing was found on 1 of 2 frames (b.tif)"),
        (
            [figures(scores=[0.9] * 9, below=[0.1]), *[figures(scores=[0.9] * 9)] * 3, figures("b", [0.9])],
            "Far fewer objects than elsewhere were found on 1 of 5 frames (b)",
        ),
    ],
)
def test_advice(frames: list[FrameFigures], said: str) -> None:
    assert any(said in sentence for sentence in overview(frames).advice)


def test_frames_without_examples_are_not_said_to_have_few() -> None:
    assert not any("on these frames" in sentence for sentence in overview([figures(scores=[0.9], examples=0)]).advice)


MARK = "if there are objects, mark some of them as further examples."


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([replace(figures(), candidates=17)], f"Nothing there lies below the threshold, so a lower one .*: {MARK}"),
        ([figures(scores=[0.9]), figures("b")], rf"on 1 of 2 frames \(b\)\. Nothing there lies below .*: {MARK}"),
        ([figures(scores=[0.9]), figures("b"), figures("c", below=[0.2])], r"on 2 of 3 .*: lower the threshold to"),
        (
            [figures(scores=[0.9]), figures("b", below=[0.2]), replace(figures("c"), flat=True)],
            r"on 1 of the 2 frames that show anything \(b\)\. .*: lower the threshold to",
        ),
    ],
)
def test_a_lower_threshold_is_advised_only_where_something_lies_below(frames: list[FrameFigures], said: str) -> None:
    advice = overview(frames).advice
    assert any(re.search(said, sentence) for sentence in advice)
    assert not any("Min Mask Area" in sentence for sentence in advice)


def test_frames_that_are_the_same_everywhere_are_not_called_poor() -> None:
    advice = overview([figures(scores=[0.9] * 9), replace(figures("b"), flat=True)]).advice
    assert not any("Nothing was found" in sentence for sentence in advice)


def test_advice_speaks_of_the_list() -> None:
    (sentence,) = overview([figures(scores=[0.9, 0.52], below=[0.1])], 3).advice
    assert sentence.endswith("are doubtful. Mark the 3 places that the gallery begins with, export, and refine.")
    (sentence,) = overview([figures(scores=[0.9] * 9)], 1).advice
    assert "See the 1 place that the gallery begins with: if only those below" in sentence


@pytest.mark.parametrize(("scores", "said"), [((0.5,), "the place whose"), ((0.5, 0.9), "the 2 places whose answers")])
def test_the_page_says_what_to_mark_next(make_out: Callable[..., Path], scores: tuple[float, ...], said: str) -> None:
    page = write_report(make_out(["a.tif"], scores, ())).read_text("utf-8")
    assert f"<b>Mark next:</b> {said}" in page


def test_places_that_are_not_there_are_passed_over(make_out: Callable[..., Path]) -> None:
    out = make_out()
    facts = json.loads((out / "run.json").read_text())
    first = facts["mark_next"][0]
    odd = [{**first, "number": 99}, {**first, "number": 0}, {**first, "xy": 9}, first]
    (out / "run.json").write_text(json.dumps({**facts, "mark_next": odd}))
    assert len(data_of(write_report(out))["next"]) == 1


def looking(name: str, examples: Sequence[float], below: Sequence[float]) -> FrameFigures:
    """A frame on which ten objects were found, with examples and candidates below that differ in one thing."""
    plain = figures(scores=[0.9] * 10, below=[0.2] * len(below))
    rest = {other: np.ones(len(below)) for other in ("area", "roundness", "brightness") if other != name}
    same = {other: np.ones(len(examples)) for other in rest}
    return replace(
        plain,
        example_looks=Looks(**{name: np.array(examples, float)}, **same),
        below_looks=Looks(**{name: np.array(below, float)}, **rest),
    )


SIX_LARGEST = [1083, 1151, 1271, 1322, 1328, 1374]  # nuclei of the bundled image; 25 of the other 117 are found
NEARLY = [438, 494, 553, 574, 585, 600, 617, 645, 651, 665, 685, 708, 731, 757, 770, 817, 1227, 1436]


@pytest.mark.parametrize(
    ("name", "examples", "below", "said"),
    [
        (
            "area",
            SIX_LARGEST,
            NEARLY,
            "larger than much of what is here: 88 % of the candidates .* smaller .* some small ones",
        ),
        (
            "brightness",
            [200, 180],
            [90, 80, 100, 110, 190],
            "brighter than much .*: 80 % of .* darker .* some dark ones",
        ),
        ("roundness", [0.95, 0.9], [0.5] * 6, "rounder than much .* less round than every example"),
    ],
)
def test_examples_of_one_side_are_told(name: str, examples: list[float], below: list[float], said: str) -> None:
    sentences = [text for text in overview([looking(name, examples, below)]).advice if "Your examples" in text]
    assert len(sentences) == 1
    assert re.search(said, sentences[0])
    nothing_found = replace(looking(name, examples, below), scores=np.zeros(0))
    assert any(re.search(said, text) for text in overview([nothing_found]).advice)


@pytest.mark.parametrize(
    ("examples", "below"),
    [
        ([100, 500], [90, 200, 300, 400, 450]),  # among the examples there are small ones
        (SIX_LARGEST, [500, 600]),  # nearly found are few
        ([], NEARLY),
        (SIX_LARGEST, [float("nan")] * 9),
    ],
)
def test_examples_of_all_sides_are_not(examples: list[float], below: list[float]) -> None:
    assert not any("Your examples" in text for text in overview([looking("area", examples, below)]).advice)


def test_examples_are_compared_with_what_lies_on_their_frames() -> None:
    frame = looking("area", SIX_LARGEST, NEARLY)
    sentence = overview([frame, *[figures(scores=[0.9] * 50)] * 20]).advice[0]  # much was found on other frames
    assert "88 % of the candidates below the threshold that were compared, on the frames with examples, are" in sentence
    many = replace(frame, scores=np.full(200, 0.9), below=np.full(100, 0.2))  # only some of which were compared
    assert sentence in overview([many]).advice
    few = replace(frame, scores=np.full(200, 0.9))
    assert not any("Your examples" in text for text in overview([few]).advice)


def test_what_objects_look_like(tmp_path: Path) -> None:
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[:, 50:] = 200
    picture = tmp_path / "a.jpg"
    picture.write_bytes(preview_jpeg(pixels))
    circle, bar = Point(25, 30).buffer(10), box(60, 20, 90, 24)
    looks = looks_of([circle, bar], picture, 1.0)
    assert looks.area == pytest.approx([circle.area, 120])
    assert looks.roundness == pytest.approx([1, 0.33], abs=0.02)
    assert looks.brightness == pytest.approx([0, 200], abs=3)
    half = looks_of([circle, box(120, 40, 180, 48)], picture, 0.5)
    assert half.area == pytest.approx([circle.area, 480])  # in pixels of the image, not of the picture
    assert half.brightness == pytest.approx([0, 200], abs=3)
    assert np.isnan(looks_of([circle], tmp_path / "gone.jpg", 1.0).brightness).all()
    assert not len(looks_of([circle], None, 1.0).area)
    assert len(looks_of([circle] * 1001, picture, 1.0).area) <= 500


@pytest.mark.parametrize(
    ("chosen", "used", "idle"),
    [
        ({}, {"smoothing", "sizes", "similarity_threshold"}, {"points_per_side", "top_percent"}),
        ({"method": "grid"}, {"points_per_side", "similarity_threshold"}, {"sizes", "top_percent"}),
        ({"method": "grid", "threshold_mode": "auto"}, {"scorer"}, {"sizes", "similarity_threshold", "top_percent"}),
        ({"threshold_mode": "otsu"}, {"sizes"}, {"scorer", "similarity_threshold", "top_percent"}),
        ({"threshold_mode": "top"}, {"top_percent"}, {"similarity_threshold"}),
    ],
)
def test_settings_without_a_part_are_folded(
    chosen: dict[str, Any], used: set[str], idle: set[str], make_out: Callable[..., Path]
) -> None:
    page = write_report(make_out(facts={"settings": Settings(**chosen).model_dump()})).read_text("utf-8")
    shown, _, rest = page.partition("<details>")
    folded = rest.partition("</details>")[0]
    assert "settings that had no part in this run" in folded
    for names, here, elsewhere in ((used, shown, folded), (idle, folded, shown)):
        for name in names:
            row = f"<code>--{name.replace('_', '-')}</code>"
            assert row in here
            assert row not in elsewhere


def test_changed_settings_come_first(make_out: Callable[..., Path]) -> None:
    chosen = Settings(method="grid", smoothing=0.5).model_dump()
    shown = write_report(make_out(facts={"settings": chosen})).read_text("utf-8").partition("<details>")[0]
    changed, rest = shown.index("<code>--smoothing</code>"), shown.index("<code>--similarity-threshold</code>")
    assert changed < rest
    assert shown.count(">changed</span>") == 2
    assert "<td>automatic" in shown


def test_the_most_examples_had_no_part_where_nothing_was_learned(make_out: Callable[..., Path]) -> None:
    saved = {"path": "cells.npz", "sha256": "ab" * 32}
    for number, (facts, is_shown) in enumerate(((None, True), ({"object_model": saved}, False))):
        shown = write_report(make_out(facts=facts, folder=f"out{number}")).read_text("utf-8").partition("<details>")[0]
        assert ("<code>--max-examples</code>" in shown) == is_shown


def test_each_stage_has_its_share_of_the_time(make_out: Callable[..., Path]) -> None:
    page = write_report(make_out()).read_text("utf-8")
    assert re.findall(r"Share of all: (\d+) %", page) == ["40", "53", "7"]  # of 7.5 s


def test_marks_in_the_browser_are_those_of_one_run(make_out: Callable[..., Path]) -> None:
    ended = "2026-01-03T00:00:00+00:00"
    outs = make_out(), make_out(folder="copy"), make_out(facts={"ended": ended}, folder="again")
    first, copy, again = (data_of(write_report(out))["id"] for out in outs)
    assert first == copy != again


def test_sizes_like_the_examples_reach_beyond_the_smallest_and_the_largest() -> None:
    assert _similar([300, 100, 200]) == [40, 750]
    assert _similar([]) == []


def test_results_that_lack_a_setting_have_its_default(make_out: Callable[..., Path]) -> None:
    older = Settings(method="grid").model_dump(exclude={"threshold_mode", "top_percent"})
    shown = write_report(make_out(facts={"settings": older})).read_text("utf-8").partition("<details>")[0]
    assert "<code>--similarity-threshold</code>" in shown


def test_the_folder_is_told_as_it_was_given(make_out: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    out = make_out()
    assert data_of(write_report(out))["folder"] == str(out)
    monkeypatch.chdir(out.parent)
    data = data_of(write_report(out))
    assert (data["folder"], data["where"]) == ("out", str(out.parent))
    assert data["results"] == str(out)


def test_results_of_an_object_model_are_known(make_out: Callable[..., Path]) -> None:
    saved = {"path": "cells.npz", "sha256": "ab" * 32}
    outs = make_out(), make_out(facts={"object_model": saved}, folder="again")
    assert [data_of(write_report(out))["objectModel"] for out in outs] == [False, True]
