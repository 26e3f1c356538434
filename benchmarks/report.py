"""Size and speed of ``report.html`` in headless Chromium.

    python -m benchmarks.report [--frames 50 --objects 20000]

Made-up frames (1,400 × 1,040 px, noise and discs) and outlines of about 20 vertices, a third of the objects as many
below the threshold. Told: the file's size, the time to write it, to open it (until the first frame, the histogram and
the gallery are there), and of one slider step: the script's own time, and until the browser has painted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from sam2_fewshot.annotations.record import ExampleMark, FrameRecord
from sam2_fewshot.geometry.outlines import mask_to_polygon
from sam2_fewshot.output.assembly import assemble
from sam2_fewshot.output.journal import JOURNAL_FOLDER, Journal
from sam2_fewshot.output.pictures import preview_jpeg
from sam2_fewshot.records import Detection, InstanceMask, Location
from sam2_fewshot.report.page import write_report
from sam2_fewshot.settings import Settings
from sam2_fewshot.storage.files import write_whole

SHAPE = (1040, 1400)
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"

STEP = """async () => {
    const slider = document.getElementById('threshold');
    const times = [], painted = [];
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    for (let k = 0; k < 40; k++) {
        await frame();
        slider.value = 0.1 + 0.8 * ((k * 17) % 40) / 40;
        const began = performance.now();
        slider.dispatchEvent(new Event('input'));
        await frame();
        await new Promise((done) => {
            const { port1, port2 } = new MessageChannel(); // its message comes after the paint
            port1.onmessage = done;
            port2.postMessage(0);
        });
        painted.push(performance.now() - began);
        times.push(Number(document.body.dataset.step));
    }
    return [times, painted];
}"""


def make_results(out: Path, frames: int, objects: int) -> None:
    """Write a journal, previews and results as a run does."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-12:13, -12:13]
    journal = Journal(out / JOURNAL_FOLDER, "benchmark")
    for xy in range(frames):
        count = objects // frames
        found = []
        pixels = rng.integers(10, 50, (*SHAPE, 1), np.uint8).repeat(3, axis=2)
        for _ in range(count + count // 3):
            wide, high = rng.uniform(5, 12, 2)
            data = (rows / high) ** 2 + (columns / wide) ** 2 <= 1
            x, y = int(rng.integers(0, SHAPE[1] - 25)), int(rng.integers(0, SHAPE[0] - 25))
            pixels[y : y + 25, x : x + 25][data] += np.uint8(80)
            mask = InstanceMask(data, x, y, SHAPE)
            found.append((mask, mask_to_polygon(mask, 0.3)))
        scores = np.sort(np.concatenate([rng.beta(6, 2, count) / 2 + 0.5, rng.uniform(0.05, 0.5, count // 3)]))[::-1]
        finds = [
            Detection(mask, outline, float(score), float(score), float("nan"), Location(xy))
            for (mask, outline), score in zip(found, scores, strict=True)
        ]
        kept = int(np.count_nonzero(scores >= 0.5))
        record = FrameRecord(
            name=f"plate_{xy:03}.tif",
            stem=f"plate_{xy:03}",
            location=Location(xy),
            frame_shape=SHAPE,
            detections=tuple(finds[:kept]),
            candidates=4000,
            seconds={"encode": 1.0 + xy},
            examples=tuple(ExampleMark(item.polygon) for item in finds[:10]) if xy == 0 else (),
            below=tuple(finds[kept:]),
            threshold=0.5,
            floor=0.05,
        )
        journal.write(record)
        write_whole(journal.preview(record.location), preview_jpeg(pixels))
    recorded = (record for xy in range(frames) if (record := journal.done(Location(xy))))
    assemble(recorded, out, tags=["cell"], facts={"settings": Settings().model_dump()})


def measure(path: Path) -> tuple[float, list[float], list[float]]:
    """Return the seconds to open a report, and the milliseconds of slider steps: the script's, and until painted."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS.split())
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        began = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-ready]")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        opened = time.perf_counter() - began
        steps, painted = page.evaluate(STEP)
        browser.close()
    return opened, steps, painted


def main() -> None:
    """Measure the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int)
    parser.add_argument("--objects", type=int)
    parser.add_argument("--keep", type=Path, help="keep the reports in this folder")
    options = parser.parse_args()
    cases = [(1, 500), (50, 20_000), (1, 20_000)]
    if options.frames and options.objects:
        cases = [(options.frames, options.objects)]
    print("frames  objects   file MB  write s  open s  step ms (median, worst)  painted ms (median, worst)")
    for frames, objects in cases:
        with tempfile.TemporaryDirectory() as folder:
            out = (options.keep or Path(folder)) / f"{frames}_{objects}"
            make_results(out, frames, objects)
            began = time.perf_counter()
            path = write_report(out)
            writing = time.perf_counter() - began
            opened, steps, painted = measure(path)
            size = path.stat().st_size / 1e6
        print(
            f"{frames:6}  {objects:7}  {size:8.1f}  {writing:7.1f}  {opened:6.2f}  "
            f"{median(steps):9.1f}  {max(steps):9.1f}  {median(painted):14.1f}  {max(painted):9.1f}"
        )


if __name__ == "__main__":
    main()
