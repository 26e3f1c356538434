"""What the user reads, and when."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from contract_server.bench import Segmenter, bright, discs, until
from contract_server.store import Image

from sam2_fewshot.errors import FewShotWarning
from sam2_fewshot.nimbus.messages import JobDisplay, Messages, Stopped, stopping

if TYPE_CHECKING:
    from contract_server.bench import Bench

    from bright import BrightMethod
    from sam2_fewshot.protocols import Progress
    from sam2_fewshot.settings import Settings


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_progress_is_told_in_hundredths() -> None:
    stream = io.StringIO()
    messages = Messages(stream)
    messages.stage(0.0, 1.0)
    messages.progress(0.0, "Learning")
    messages.start("crops", 5000)
    for _ in range(5000):
        messages.advance()
    told = lines(stream)
    assert len(told) == 101
    assert told[0] == {"progress": 0.0, "title": "Learning", "info": ""}
    assert [line["progress"] for line in told] == sorted(line["progress"] for line in told)  # type: ignore[type-var]
    messages.start("another", None)
    messages.advance()
    assert len(lines(stream)) == 101


def test_a_long_silence_is_broken() -> None:
    stream = io.StringIO()
    with Messages(stream, silence=0.1) as messages:
        messages.progress(0.5, "Segmenting", "XY 1")
        until(lambda: len(lines(stream)) >= 3)
    told = lines(stream)
    assert all(line == {"progress": 0.5, "title": "Segmenting", "info": "XY 1"} for line in told)


def test_a_line_of_the_log_steers_no_terminal() -> None:
    stream = io.StringIO()
    Messages(stream).log("x\x1b[2J\ny.png failed")
    assert stream.getvalue() == "x\\x1b[2J y.png failed\n"


def test_warnings_come_once_and_not_without_end() -> None:
    stream = io.StringIO()
    messages = Messages(stream, hide=lambda text: text.replace("s3cret", "…"))
    for number in range(30):
        messages.warn(f"Odd {number} s3cret")
        messages.warn(f"Odd {number} s3cret")
    told = stream.getvalue().splitlines()
    assert len(told) == 30
    assert json.loads(told[0]) == {
        "warning": "Odd 0 …",
        "title": "SAM 2 few-shot",
        "info": None,
        "type": "warning",
    }
    assert told[29] == "Warning: Odd 29 …"
    messages.error("Wrong s3cret")
    assert "s3cret" not in stream.getvalue()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_after_the_first_frame_the_time_left_is_told_and_kept_up_to_date() -> None:
    stream, clock = io.StringIO(), Clock()
    with Messages(stream, silence=0.05) as messages:
        display = JobDisplay(messages, 0.1, clock)
        display.begin(400)
        display.frame_begins("XY 1")
        clock.now = 12.0
        display.frame_ends(9, 5, 12.0)
        display.last = "; last: 5 added of 9"
        display.frame_begins("XY 2")
        told = stream.getvalue().splitlines()
        assert "The first frame took 12 s; if they are alike, the other 399 take about 80 min." in told
        # Although 1 of 400 frames is no hundredth of the job.
        assert json.loads(told[-1])["info"] == "frame 2 of 400 (XY 2), about 80 min left; last: 5 added of 9"
        clock.now += 2400.0  # a frame of forty minutes
        until(lambda: "about 133.3 h left" in stream.getvalue())
        display.frame_fails("It is damaged.")
        display.end()
    assert '"info": "frame 2 of 400 (XY 2), about 133.3 h left; last: 5 added of 9"' in stream.getvalue()
    assert stream.getvalue().splitlines()[-1] == "2 frames in 40 min 12 s, 20 min 06 s a frame."


def test_of_one_frame_no_time_left_is_told() -> None:
    stream = io.StringIO()
    messages, clock = Messages(stream), Clock()
    display = JobDisplay(messages, 0.1, clock)
    display.begin(1)
    display.frame_begins("the image")
    clock.now = 3.0
    display.frame_ends(9, 5, 3.0)
    display.end()
    assert [json.loads(line)["info"] for line in stream.getvalue().splitlines()[:-1]] == ["frame 1 of 1 (the image)"]
    assert stream.getvalue().endswith("\n1 frame in 3.0 s, 3.0 s a frame.\n")
    display = JobDisplay(messages, 0.1, clock)
    display.begin(0)  # nothing is left to be done
    display.end()
    assert stream.getvalue().count("\n") == 2


def test_a_job_of_many_frames_tells_about_a_hundred_times(bench: Bench) -> None:
    image = Image({(xy, 0, 0, 0): discs() if xy == 0 else np.full((64, 64), 100, "uint16") for xy in range(300)})
    bench.server.store.images[next(iter(bench.server.store.images))] = image

    outcome = bench.run()
    told = outcome.messages
    progress = [message for message in told if "progress" in message]
    assert len(progress) <= 110
    middle = progress[len(progress) // 2]
    assert middle["info"].startswith("frame 1")
    assert "left; last: 0 added of" in middle["info"]
    (warning,) = outcome.texts("warning")
    assert warning.startswith("Nothing was found on 299 of 300 frames (XY 2; XY 3; ")


def test_nothing_found_at_all_says_what_to_do(bench: Bench) -> None:
    bench.method = lambda: bright(level=255)
    (warning,) = bench.run().texts("warning")
    assert warning.startswith("Nothing was found. If objects are missing, lower Similarity Threshold, or mark")
    for only in ({}, {"Batch XY": "1"}):
        (warning,) = bench.run(**{"Threshold Mode": "auto", **only}).texts("warning")
        assert "missing, choose Threshold Mode fixed and a low Similarity Threshold, or mark" in warning


def test_a_frame_on_which_all_is_marked_is_not_called_empty(bench: Bench) -> None:
    bench.method = lambda: bright(level=255)
    outcome = bench.run(**{"Batch XY": "1"})
    assert outcome.code == 0
    (warning,) = outcome.texts("warning")
    assert warning.startswith("Nothing was found besides the examples. If objects are missing, lower Similarity")


def test_what_the_form_asks_for_without_effect_is_said(bench: Bench) -> None:
    outcome = bench.run(**{"Points per side": 64, "Min Mask Area": "", "More settings": "max_examples = 50"})
    assert outcome.code == 0, outcome.lines
    assert outcome.texts("warning") == [
        "Min Mask Area is empty, so its default counts: 30. Type a number to have another.",
        "Points per side was set to 64, which has no effect with Method guided; it counts only with grid.",
    ]
    assert outcome.segmenter is not None
    assert outcome.segmenter.settings.max_examples == 50


def test_more_settings_are_checked_before_anything_else(bench: Bench) -> None:
    outcome = bench.run(**{"More settings": "max_exampels = 50"})
    assert outcome.code == 2
    assert outcome.error.startswith(
        "There is no setting called 'max_exampels'. Did you mean max_examples? The settings"
    )
    assert not bench.server.seen


def test_a_cpu_in_place_of_a_gpu_is_said(bench: Bench) -> None:
    outcome = bench.run(replace(bench.means, gpu_expected=lambda: True))
    assert outcome.texts("warning")[0].startswith("There is no GPU for this job")


def test_warnings_of_python_reach_the_user(bench: Bench) -> None:
    def warning(settings: Settings, progress: Progress, method: BrightMethod) -> Segmenter:
        warnings.warn("cuda:0 cannot be used", FewShotWarning, stacklevel=1)
        return Segmenter(settings, progress, method)

    bench.kind = warning
    outcome = bench.run()
    assert outcome.texts("warning") == ["cuda:0 cannot be used"]


def test_a_signal_breaks_the_block_and_is_forgotten_after_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    left: list[int] = []

    def work() -> None:
        with stopping(lambda: None, 5.0, left.append):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(Stopped):
        work()
    assert signal.getsignal(signal.SIGTERM) is before
    until(lambda: not any(thread.name == "stopping" for thread in threading.enumerate()))
    assert not left


def test_a_block_that_does_not_end_is_ended() -> None:
    said: list[str] = []
    left: list[int] = []
    with stopping(lambda: said.append("stopped"), 0.1, left.append):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except Stopped:
            until(lambda: left)
    assert (said, left) == (["stopped"], [1])


def test_a_job_that_is_interrupted_is_not_done(bench: Bench) -> None:
    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    bench.method = lambda: bright(on_find=interrupt)
    outcome = bench.run()
    assert outcome.code == 1
    assert outcome.error.startswith("The job was stopped. Finished frames are kept")
    assert len(bench.found()) == 4


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    entered: list[int] = []

    def enter() -> None:
        with stopping(lambda: None):
            entered.append(1)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [1]
