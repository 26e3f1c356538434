"""The report in headless Chromium, as a user works with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from report_pages import counted_again, slide, until

from sam2_fewshot.report.page import write_report
from sam2_fewshot.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Page


SETTLED = "Number(document.body.dataset.settled ?? 0) > 0"  # the cards are not replaced any more, as under a click


@pytest.fixture
def report(make_out: Callable[..., Path]) -> Path:
    return write_report(make_out())


def test_the_slider_hides_and_shows_at_once(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    count = page.locator("#shown-count")
    assert count.inner_text() == "12"
    assert page.locator("#command").inner_text().startswith("Move a slider")
    slide(page, "threshold", 0.7)
    assert count.inner_text() == "6"
    assert page.locator("[data-shown='1']").inner_text() == "3"
    assert "refine" in page.locator("#command").inner_text()
    assert page.locator("#command").inner_text().endswith("--similarity-threshold 0.7")
    assert "Similarity Threshold: 0.7" in page.locator("#setting").inner_text()
    assert "6 objects shown at a threshold of 0.7" in page.locator("#status").inner_text()
    slide(page, "threshold", 0.2)  # what lay below the threshold of the run comes up
    assert count.inner_text() == "16"
    assert page.locator("#threshold-number").input_value() == "0.2"
    assert "16 shown, 2 hidden" in (page.locator("#histogram-title").text_content() or "")
    page.locator("#threshold-number").fill("0.9")
    until(page, "document.getElementById('shown-count').textContent === '4'")
    page.locator("#reset").click()
    until(page, "document.getElementById('shown-count').textContent === '12'")


def test_thresholds_of_frames_count_until_the_slider_is_moved(
    make_out: Callable[..., Path], open_report: Callable[..., Page]
) -> None:
    settings = Settings(threshold_mode="top").model_dump()
    report = write_report(make_out(facts={"settings": settings}, thresholds=(0.81, 0.4)))
    page = open_report(report)
    figures = ("clear-count", "doubtful-count", "missed-count")
    written = [report.read_text("utf-8").split(f'id="{figure}">')[1].split("<")[0] for figure in figures]
    assert [page.locator(f"#{figure}").inner_text() for figure in figures] == written == ["8", "1", "1"]
    headline, threshold = page.locator("#headline"), page.locator("#threshold-number")
    assert headline.inner_text() == "9 objects found on 2 frames"
    assert [page.locator(f"[data-shown='{frame}']").inner_text() for frame in (0, 1)] == ["2", "7"]
    assert page.locator("#command").inner_text().startswith("Move a slider")
    assert (threshold.input_value(), threshold.get_attribute("placeholder")) == ("", "by frame")
    until(page, "document.getElementById('status').textContent === \"9 objects shown at each frame's threshold.\"")
    page.locator("#order").select_option("doubt")
    nearest = page.locator(".card p:not(.where)").first.inner_text(), page.locator(".card .where").first.inner_text()
    assert nearest == ("0.80 · 197 px", "a.tif")
    slide(page, "threshold", 0.4)  # the lowest of the frames', now for both
    assert headline.inner_text() == "14 objects chosen on 2 frames; 9 in this run"
    assert page.locator("#command").inner_text().endswith(" --threshold-mode fixed --similarity-threshold 0.4")
    assert "Threshold Mode: fixed, Similarity Threshold: 0.4." in page.locator("#setting").inner_text()
    page.locator("#reset").click()
    until(page, "document.getElementById('shown-count').textContent === '9'")
    assert threshold.input_value() == ""


def test_a_chosen_threshold_for_all_frames_is_shown(
    make_out: Callable[..., Path], open_report: Callable[..., Page]
) -> None:
    settings = Settings(threshold_mode="auto").model_dump()
    page = open_report(write_report(make_out(facts={"settings": settings}, thresholds=(0.6, 0.6))))
    assert page.locator("#threshold-number").input_value() == "0.6"
    slide(page, "threshold", 0.7)
    assert page.locator("#command").inner_text().endswith(" --threshold-mode fixed --similarity-threshold 0.7")
    slide(page, "threshold", 0.6)
    assert page.locator("#command").inner_text().startswith("Move a slider")


HURRY = """async () => {
    window.told = [];
    new MutationObserver(() => told.push(document.getElementById('status').textContent)).observe(
        document.getElementById('status'), { childList: true, characterData: true, subtree: true });
    const move = (value) => {
        const control = document.getElementById('threshold');
        control.value = value;
        control.dispatchEvent(new Event('input'));
    };
    move(0.7);
    await new Promise((drawn) => requestAnimationFrame(drawn));  // and nothing is told yet, however long frames take
    requestAnimationFrame = (draw) => setTimeout(draw, 600);  // a browser that is busy
    move(0.2);
}"""


def test_what_is_announced_is_what_is_shown(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    until(page, SETTLED)
    page.evaluate(HURRY)
    until(page, "Number(document.body.dataset.settled) > 1")
    assert page.evaluate("told") == ["16 objects shown at a threshold of 0.2."]


def test_one_click_leaves_sizes_like_those_of_the_examples(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    page.locator("#similar").click()
    until(page, "document.getElementById('min-area-number').value === '100'")
    assert page.locator("#max-area-number").input_value() == "630"  # of examples of 252 px
    command = page.locator("#command").inner_text()
    assert command.endswith("--min-mask-area 100 --max-mask-area 630")
    page.locator("#reset").click()
    until(page, "document.getElementById('max-area-number').value === ''")


def test_sizes_are_chosen_alike(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    page.locator("#min-area-number").fill("200")
    until(page, "document.getElementById('shown-count').textContent === '6'")
    assert page.locator("#command").inner_text().endswith("--min-mask-area 200")
    slide(page, "max-area", 500)
    command = page.locator("#command").inner_text()
    largest = int(command.rsplit(" ", 1)[1])
    assert "--max-mask-area" in command
    assert 200 < largest < 500
    hint = page.locator("#area-hint")
    assert hint.is_hidden()  # the example has 252 px
    page.locator("#min-area-number").fill("300")
    until(page, "!document.getElementById('area-hint').hidden")
    assert "does not exclude sizes that were shown" in hint.inner_text()


def test_marks_are_exported_for_the_next_run(report: Path, open_report: Callable[..., Page], tmp_path: Path) -> None:
    page = open_report(report)
    cards = page.locator(".card")
    page.locator("#order").select_option("doubt")
    assert cards.count() == 18
    assert page.locator("#export").is_disabled()
    assert [text[:4] for text in page.locator(".card b").all_inner_texts()[:4]] == ["0.50", "0.50", "0.45", "0.45"]
    cards.nth(0).get_by_role("button", name="wrong: object 6 of a.tif").click()
    # In the label image the examples have the numbers from 7.
    cards.nth(2).get_by_role("button", name="right: candidate 7 of a.tif").click()
    assert "1 right, 1 wrong" in page.locator("#mark-count").inner_text()
    with page.expect_download() as download:
        page.locator("#export").click()
    assert download.value.suggested_filename == "corrections.json"
    download.value.save_as(tmp_path / "corrections.json")
    content = json.loads((tmp_path / "corrections.json").read_text())
    assert content["sam2-fewshot"]["results"] == str(report.parent)
    wrong, right = content["annotations"]
    assert (wrong["tags"], wrong["image"], wrong["number"], wrong["score"]) == (["wrong"], "a.tif", 6, 0.5)
    assert (right["tags"], right["score"]) == (["right"], 0.45)
    assert wrong["location"] == {"XY": 0, "Z": 0, "Time": 0}
    xs = [point["x"] for point in wrong["coordinates"]]
    assert min(xs) == pytest.approx(20 + 36 * 5 - 11, abs=0.3)
    assert max(xs) == pytest.approx(20 + 36 * 5 + 12, abs=0.3)
    assert "refine" in page.locator("#after-export code").inner_text()
    cards.nth(0).get_by_role("button", name="wrong").click()  # a second click takes it back
    assert page.locator("#after-export").is_hidden()  # what was saved is no longer what is marked
    assert "1 right, 0 wrong" in page.locator("#mark-count").inner_text()
    page.locator("#order").select_option("marked")
    assert cards.count() == 1
    assert counted_again(page) == "Marked: 1 right, 0 wrong."
    page.locator("#clear").click()
    assert page.locator("#mark-count").inner_text() == "Nothing is marked yet."


def test_two_tabs_of_a_report_have_the_same_marks(report: Path, open_report: Callable[..., Page]) -> None:
    one = open_report(report)
    other = one.context.new_page()
    other.goto(report.as_uri())
    other.wait_for_selector("body[data-ready]")
    one.locator(".card .wrong").first.click()
    until(other, "document.getElementById('mark-count').textContent === 'Marked: 0 right, 1 wrong.'")
    assert "is-wrong" in str(other.locator(".card").first.get_attribute("class"))
    other.locator(".card .right").nth(1).click()
    until(one, "document.getElementById('mark-count').textContent === 'Marked: 1 right, 1 wrong.'")
    assert counted_again(one) == "Marked: 1 right, 1 wrong."
    other.locator("#clear").click()
    until(one, "document.getElementById('mark-count').textContent === 'Nothing is marked yet.'")


def test_a_mark_is_added_to_what_is_stored_by_then(report: Path, open_report: Callable[..., Page]) -> None:
    """A busy browser may tell a page that nothing is stored, and tell it all a moment later."""
    page = open_report(report)
    cards = page.locator(".card")
    cards.nth(0).get_by_role("button", name="right").click()
    stored = [*([int(cards.nth(i).get_attribute("data-object") or -1), "right"] for i in (0, 1)), ["x", "right"], 7]
    page.evaluate("stored => localStorage.setItem(localStorage.key(0), stored)", json.dumps(stored))
    assert page.locator("#mark-count").inner_text() == "Marked: 1 right, 0 wrong."  # the page has not looked again
    page.get_by_role("button", name="wrong: candidate 8 of a.tif").click()
    assert page.locator("#mark-count").inner_text() == "Marked: 2 right, 1 wrong."
    assert page.locator(".card.is-right").count() == 2
    page.locator("#clear").click()
    assert page.locator("#mark-count").inner_text() == "Nothing is marked yet."
    assert page.evaluate("localStorage.getItem(localStorage.key(0))") == "[]"


def test_marks_stay_on_a_page_that_can_store_nothing(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    cards = page.locator(".card")
    cards.nth(0).get_by_role("button", name="right").click()
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
    cards.nth(1).get_by_role("button", name="wrong").click()
    cards.nth(2).get_by_role("button", name="wrong").click()
    assert page.locator("#mark-count").inner_text() == "Marked: 1 right, 2 wrong."


def test_corrections_of_an_object_model_come_with_the_examples(
    make_out: Callable[..., Path], open_report: Callable[..., Page]
) -> None:
    out = make_out(facts={"object_model": {"path": "cells.npz", "sha256": "ab" * 32}})
    page = open_report(write_report(out))
    page.locator(".card").nth(0).get_by_role("button", name="right").click()
    with page.expect_download():
        page.locator("#export").click()
    command = page.locator("#after-export code").inner_text()
    assert command.endswith("out PATH/TO/corrections.json --examples PATH/TO/EXAMPLES")


def test_commands_say_where_they_run_and_what_follows(
    make_out: Callable[..., Path], open_report: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make_out()
    monkeypatch.chdir(out.parent)
    page = open_report(write_report(out))
    field, setting, after = page.locator("#threshold-number"), page.locator("#setting"), page.locator("#after-export")
    run_it = f"Run it in {out.parent}."
    field.fill("0.503")  # less than half a step of the slider from the run's own
    until(page, "document.getElementById('command').textContent.endsWith(' --similarity-threshold 0.503')")
    assert page.locator("#shown-count").inner_text() == "10"
    assert setting.inner_text().startswith(f"{run_it} Nothing is searched again")
    page.locator(".card .right").first.click()
    with page.expect_download():
        page.locator("#export").click()
    assert after.inner_text().endswith(f"out PATH/TO/corrections.json --similarity-threshold 0.503 {run_it}")
    field.fill("0.04")  # below what is known, .05
    until(page, "document.getElementById('command').textContent.endsWith(' 0.04')")
    assert setting.inner_text().startswith(f"{run_it} At so low a threshold frames are searched again")
    assert after.is_hidden()  # its command was of another threshold
    field.fill("0.5")
    until(page, "document.getElementById('command').textContent.startsWith('Move a slider')")


def test_the_gallery_begins_with_what_to_mark_next(
    make_out: Callable[..., Path], open_report: Callable[..., Page], tmp_path: Path
) -> None:
    out = make_out()
    listed = json.loads((out / "run.json").read_text())["mark_next"]
    page = open_report(write_report(out))
    cards = page.locator(".card")
    assert page.locator("#order").input_value() == "next"
    assert page.locator(".card b").all_inner_texts() == [f"{place['score']:.2f}" for place in listed]
    assert page.locator(".card .where").all_inner_texts() == [place["image"] for place in listed]
    assert page.locator("#why-next").inner_text().startswith("Mark next: the 10 places whose answers should teach most")
    assert page.locator("#why-any").is_hidden()
    cards.nth(0).get_by_role("button", name="right").click()
    cards.nth(9).get_by_role("button", name="wrong").click()
    with page.expect_download() as download:
        page.locator("#export").click()
    download.value.save_as(tmp_path / "corrections.json")
    said = json.loads((tmp_path / "corrections.json").read_text())["annotations"]
    assert [each["tags"] for each in said] == [["right"], ["wrong"]]
    assert [(each["image"], each["number"]) for each in said] == [
        (listed[i]["image"], listed[i]["number"]) for i in (0, 9)
    ]
    until(page, SETTLED)
    cards.nth(1).locator("canvas").click()
    word = "Object" if listed[1]["score"] >= 0.5 else "Candidate"
    until(page, f"document.getElementById('picked-text').textContent.startsWith('{word} {listed[1]['number']}: ')")
    assert page.locator("#frame").input_value() == str(listed[1]["xy"] - 1)
    page.locator("#more").click()  # the others, after the list
    assert page.locator("#order").input_value() == "doubt"
    assert cards.count() == 18
    assert page.locator("#why-next").is_hidden()
    assert page.locator(".card.is-right").count() == 1


def test_the_list_keeps_to_the_sizes_that_are_chosen(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    slide(page, "threshold", 0.95)
    assert page.locator(".card").count() == 10  # it is of this run, whatever the slider displays
    page.locator("#min-area-number").fill("300")
    until(page, "document.querySelectorAll('.card').length < 10")
    areas = [text.split(" · ")[1] for text in page.locator(".card p:not(.where)").all_inner_texts()]
    assert all(int(area.removesuffix(" px")) >= 300 for area in areas)


def test_older_results_have_no_list(make_out: Callable[..., Path], open_report: Callable[..., Page]) -> None:
    out = make_out()
    facts = json.loads((out / "run.json").read_text())
    del facts["mark_next"]
    (out / "run.json").write_text(json.dumps(facts))
    page = open_report(write_report(out))
    assert page.locator("#order").input_value() == "doubt"
    assert page.locator(".card").count() == 18
    assert "Mark ten of them in the gallery" in page.locator(".advice").first.inner_text()


def test_keys_are_enough(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#threshold").focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('threshold-number').value === '0.51'")
    page.keyboard.press("Home")
    until(page, "document.getElementById('shown-count').textContent === '18'")
    page.locator(".card button").first.focus()
    page.keyboard.press("w")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("r")
    assert page.locator(".card").nth(0).get_attribute("class") == "card is-wrong"
    assert page.locator(".card").nth(1).get_attribute("class") == "card is-right"
    assert page.locator(".card button[aria-pressed=true]").count() == 2
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("w")
    assert page.locator(".card").nth(0).get_attribute("class") == "card"
    page.keyboard.press("f")
    until(page, "document.activeElement.parentElement.id === 'picked-buttons'")
    page.keyboard.press("Enter")
    assert page.locator(".card").nth(0).get_attribute("class") == "card is-right"
    page.locator("#next").focus()
    page.keyboard.press("Enter")
    assert page.locator("#frame").input_value() == "1"


def test_every_control_has_a_name(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, canvas, svg, [role=region]')]
            .filter((e) => e.offsetParent !== null && e.getAttribute('aria-hidden') !== 'true')
            .filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')
                || (e.labels && e.labels.length)))
            .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size") == page.evaluate(
        "document.querySelectorAll('[id]').length"
    )


def test_an_object_is_picked_on_its_frame(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    page.locator("#frame").select_option("1")
    until(page, "document.getElementById('view').getAttribute('aria-label').startsWith('b.tif: 6 objects')")
    box = page.locator("#view").bounding_box()
    assert box is not None
    place = {"x": 56.5 / 400 * box["width"], "y": 40.5 / 120 * box["height"]}
    page.locator("#view").click(position=place)
    assert page.locator("#picked-text").inner_text() == "Object 2: score 0.90, 149 px."
    page.locator("#picked-buttons").get_by_text("Wrong").click()
    assert "1 wrong" in page.locator("#mark-count").inner_text()
    page.locator("#zoom-in").click()
    wider = page.locator("#view").bounding_box()
    assert wider is not None
    assert wider["width"] > 1.5 * box["width"]
    page.locator("#zoom-fit").click()
    page.locator("#view").click(position={"x": 5, "y": 5})
    assert page.locator("#picked-buttons").is_hidden()
    until(page, SETTLED)
    page.locator(".card canvas").first.click()
    until(page, "document.getElementById('picked-text').textContent.startsWith('Object 6: score 0.50')")
    page.get_by_role("button", name="b.tif", exact=True).click()
    assert page.locator("#frame").input_value() == "1"


def test_outlines_are_where_the_objects_are(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)

    def colour(x: float, y: float) -> str:
        """JavaScript for the red, green and blue at a place in image pixels."""
        return f"""(() => {{
            const canvas = document.getElementById('view');
            const scale = canvas.width / 400;
            const copy = new OffscreenCanvas(1, 1).getContext('2d', {{ willReadFrequently: true }});
            copy.drawImage(canvas, -Math.round({x} * scale), -Math.round({y} * scale));
            return [...copy.getImageData(0, 0, 1, 1).data.slice(0, 3)];
        }})()"""

    edge, middle = colour(20 - 6, 40.5), colour(20.5, 40.5)
    until(page, f"document.getElementById('view').width > 300 && {edge}[0] > 150")  # the best find's edge is yellow
    red, green, blue = page.evaluate(edge)
    assert min(red, green) > 150 > blue
    assert max(page.evaluate(middle)) < 90
    page.locator("#show-outlines").uncheck()
    until(page, f"{edge}[0] < 90")


def test_a_phone_and_paper(report: Path, open_report: Callable[..., Page], tmp_path: Path) -> None:
    page = open_report(report, width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    small = page.evaluate(
        "[...document.querySelectorAll('button:not(.link), select')].filter((e) => e.offsetParent && "
        "e.getBoundingClientRect().height < 32).map((e) => e.outerHTML)"
    )
    assert small == []
    page.emulate_media(media="print")
    assert page.locator("#export").is_hidden()
    assert page.locator("#view").is_visible()
    assert page.locator("#frame-table").is_visible()
    assert len(page.pdf()) > 10_000


def test_a_dark_room(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report, color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(20, 25, 27)"


def test_without_scripts_no_control_is_shown(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report, java_script_enabled=False)
    assert page.locator("#frame-table").is_visible()
    for part in ("#frames", "#choice", "#gallery", "th.needs-script"):
        assert page.locator(part).is_hidden(), part


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"{{7*7}}`${1}.tif"


def test_nothing_that_comes_from_outside_runs(make_out: Callable[..., Path], open_report: Callable[..., Page]) -> None:
    facts = {
        "warnings": [EVIL],
        "failures": [EVIL],
        "model": {"name": EVIL, "sha256": EVIL, "licence": EVIL},
        "versions": {EVIL: EVIL},
        "device": EVIL,
    }
    page = open_report(write_report(make_out([EVIL, "<!--.tif"], facts=facts, folder="o <b>&'")))
    assert page.locator("#frame option").first.inner_text() == EVIL
    assert page.locator("script").count() == page.evaluate("document.scripts.length") == 8
    assert page.locator("img").count() == 0
    slide(page, "threshold", 0.7)
    assert """o <b>&'"'"''""" in page.locator("#command").inner_text()  # the folder's apostrophe, quoted for the shell


def test_a_page_injected_into_stays_still(report: Path, open_report: Callable[..., Page], tmp_path: Path) -> None:
    """The content security policy stops what the escaping might miss."""
    text = report.read_text("utf-8").replace("</header>", "<script>document.title = 'run'</script></header>")
    tampered = tmp_path / "tampered.html"
    tampered.write_text(text, "utf-8")
    page = open_report(report)
    assert page.title() == "12 found – sam2-fewshot report"
    other = page.context.new_page()
    other.goto(tampered.as_uri())
    other.wait_for_selector("body[data-ready]")
    assert other.title() == "12 found – sam2-fewshot report"


@pytest.mark.parametrize(("scores", "below"), [((), ()), ((), (0.2,)), ((0.5,), ())])
def test_little_or_nothing(
    make_out: Callable[..., Path],
    open_report: Callable[..., Page],
    scores: tuple[float, ...],
    below: tuple[float, ...],
) -> None:
    page = open_report(write_report(make_out(["a.tif"], scores, below)))
    assert page.locator("#shown-count").inner_text() == str(len(scores))
    assert page.locator(".card").count() == len(scores) + len(below)
    slide(page, "max-area", 500)
    assert page.locator("#shown-count").is_visible()


def place_of(page: Page, control: str) -> dict[str, float]:
    box = page.locator(control).bounding_box()
    assert box is not None
    return {**box, "bottom": box["y"] + box["height"]}


def test_picture_and_sliders_lie_in_the_first_window(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report, width=1280, height=800)
    for control in ("#view", "#threshold", "#min-area", "#max-area"):
        assert place_of(page, control)["bottom"] <= 800, control
    slide(page, "threshold", 0.7)
    assert place_of(page, "#command")["bottom"] <= 800


def test_headline_and_cards_follow_the_choice(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    headline = page.locator("#headline")
    figures = ("#clear-count", "#doubtful-count", "#missed-count", "#median-score")

    def told() -> list[str]:
        return [page.locator(figure).inner_text() for figure in figures]

    def written() -> list[str]:
        text = report.read_text("utf-8")
        return [text.split(f'id="{figure[1:]}">')[1].split("<")[0] for figure in figures]

    until(page, SETTLED)
    assert headline.inner_text() == "12 objects found on 2 frames"
    assert told() == written() == ["8", "4", "2", "0.71"]
    slide(page, "threshold", 0.7)
    assert headline.inner_text() == "6 objects chosen on 2 frames; 12 in this run"
    assert told() == ["6", "0", "2", "0.90"]
    slide(page, "threshold", 0.95)
    assert told() == ["0", "2", "2", "0.95"]
    page.locator("#min-area-number").fill("5000")
    until(page, "document.getElementById('shown-count').textContent === '0'")
    assert headline.inner_text() == "No objects chosen on 2 frames; 12 in this run"
    assert page.locator("#tiles").is_hidden()
    page.locator("#reset").click()
    until(page, "document.getElementById('headline').textContent === '12 objects found on 2 frames'")


def test_fields_show_what_is_used(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    field = page.locator("#threshold-number")
    field.fill("7")
    assert field.input_value() == "7"  # as long as it is being typed
    field.press("Enter")
    assert field.input_value() == "1"
    field.fill("")
    field.press("Enter")
    assert field.input_value() == "1"
    area = page.locator("#min-area-number")
    area.fill("199.6")
    area.press("Enter")
    assert area.input_value() == "200"
    until(page, "document.getElementById('command').textContent.endsWith('--min-mask-area 200')")


def test_cards_are_of_one_height(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report)
    page.locator("#order").select_option("doubt")
    heights = page.evaluate("[...document.querySelectorAll('.card')].map((e) => e.offsetHeight)")
    assert len(heights) == 18
    assert len(set(heights)) == 1
    assert page.locator(".card .badge").all_inner_texts() == ["below"] * 6
    tiles = page.evaluate("[...document.querySelectorAll('.tiles > div')].map((e) => e.offsetHeight)")
    assert len(tiles) == 4
    assert len(set(tiles)) == 1


def test_on_a_phone_the_slider_stays_beside_the_picture(report: Path, open_report: Callable[..., Page]) -> None:
    page = open_report(report, width=390, height=844, is_mobile=True, has_touch=True)
    for scroll in ("0", "document.getElementById('view').getBoundingClientRect().top + scrollY - 10"):
        page.evaluate(f"scrollTo(0, {scroll})")
        slider, picture = place_of(page, "#threshold"), place_of(page, "#view")
        assert slider["bottom"] <= 844
        assert picture["y"] < 844
        assert picture["bottom"] <= slider["y"]
    assert page.locator("#picked-text").inner_text().startswith("Tap an object")
    assert page.locator(".keys").is_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_nothing_found_makes_no_noise(make_out: Callable[..., Path], open_report: Callable[..., Page]) -> None:
    page = open_report(write_report(make_out(["a.tif"], (), ())))
    assert page.locator("#headline").inner_text() == "No objects found on 1 frame"
    for part in ("#tiles", "#threshold", "#min-area", "#command", "#gallery", ".legend", "#picked"):
        assert page.locator(part).count() == 0 or page.locator(part).is_hidden(), part
    other = open_report(write_report(make_out(["a.tif"], (), (0.2,), folder="below")))
    assert other.locator("#tiles").is_hidden()
    assert other.locator("#threshold").is_visible()
    slide(other, "threshold", 0.2)
    assert other.locator("#tiles").is_visible()
    assert other.locator("#headline").inner_text() == "1 object chosen on 1 frame; 0 in this run"
