"""Progress on a terminal and off it; what the user sees of errors."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import typer
from rich.console import Console
from rich.progress import Progress
from shapely import box

from sam2_fewshot.annotations.record import FrameRecord
from sam2_fewshot.cli.console import BarDisplay, PlainDisplay, guarded, terminal_display
from sam2_fewshot.cli.segment import report
from sam2_fewshot.errors import CheckpointError, FewShotWarning, InputError
from sam2_fewshot.files.run import Summary
from sam2_fewshot.geometry.outlines import polygon_to_mask
from sam2_fewshot.records import Counts, Detection, Location
from sam2_fewshot.runner.tasks import Failure
from sam2_fewshot.settings import Settings


def use(display):
    display.say("Model [micro] on CPU.")
    display.start("learning", 2)
    display.advance(2)
    display.begin(3)
    for name in ("a.png", "b.png"):
        display.frame_begins(name)
        display.start("proposing", None)
        display.advance(5)
        display.start("comparing", 7)
        display.advance(7)
        display.frame_ends(7, 4, 1.5)
    display.frame_begins("c.png")
    display.warn("blurred")
    display.frame_fails("it is damaged.")
    display.end()


def test_plain_lines(capsys):
    use(PlainDisplay())
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0] == "Model [micro] on CPU."
    assert lines[1] == "Frame 1 of 3: a.png: 4 of 7 candidates kept, 1.5 s, 0.0 s left"
    assert lines[3:] == ["Warning: blurred", "Failed: frame 3 of 3: c.png: it is damaged."]


def test_a_line_break_in_a_name_breaks_no_line(capsys):
    display = PlainDisplay()
    display.begin(1)
    display.frame_begins("a\nb.png")
    display.frame_ends(7, 4, 1.5)
    assert capsys.readouterr().err == "Frame 1 of 1: a b.png: 4 of 7 candidates kept, 1.5 s\n"


class Refusing(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("stderr", [Refusing(errno.ENOSPC), Refusing(errno.EIO), None])
def test_a_run_goes_on_where_its_lines_cannot_be_printed(monkeypatch, tmp_path, stderr):
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(sys, "stdout", stderr)
    with guarded():
        with terminal_display() as display:
            use(display)
        warnings.warn("ours", FewShotWarning, stacklevel=1)
        report(Summary(tmp_path, 1, 1, 0, 9, {"propose": 2.0}), Settings())
    assert code_of(CheckpointError("a.pt is damaged."), debug=True) == 2
    assert code_of(ValueError("odd"), debug=True) == 1


def test_a_run_ends_where_nobody_reads_its_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Refusing(errno.EPIPE))
    with pytest.raises(BrokenPipeError), guarded():
        PlainDisplay().say("Model [micro] on CPU.")


def test_plain_signs_of_life(capsys):
    now = [0.0]
    display = PlainDisplay(clock=lambda: now[0])
    display.begin(1)
    display.frame_begins("a.png")
    display.start("proposing", 10)
    for _ in range(10):
        now[0] += 9
        display.advance()
    assert capsys.readouterr().err.splitlines() == [
        "  a.png: proposing 30% ...",
        "  a.png: proposing 60% ...",
        "  a.png: proposing 90% ...",
    ]


def test_bars():
    stream = io.StringIO()
    with Progress(console=Console(file=stream, width=100, force_terminal=True)) as bars:
        display = BarDisplay(bars)
        use(display)
        assert bars.tasks == []
    text = stream.getvalue()
    assert "Model [micro] on CPU." in text
    assert "Warning: blurred" in text
    assert "Failed: c.png: it is damaged." in text


def test_a_name_of_somebody_elses_steers_no_terminal(capsys):
    name, told = "x\x1b]52;c;cm0K\x07\x9b2Jy.png", r"x\x1b]52;c;cm0K\x07\x9b2Jy.png"
    with pytest.raises(typer.Exit), guarded():
        raise InputError(f"{name} is damaged.")
    assert capsys.readouterr().err == f"Error: {told} is damaged.\n"
    stream = io.StringIO()
    with Progress(console=Console(file=stream, width=200, force_terminal=True)) as bars:
        display = BarDisplay(bars)
        display.frame_begins(name)
        display.start("proposing")
        bars.refresh()
        display.warn(f"{name} is blurred.")
    text = stream.getvalue()
    assert f"{told}: proposing" in text
    assert f"Warning: {told} is blurred." in text
    assert not any(letter in text for letter in ("\x1b]", "\x07", "\x9b"))


def test_bars_count(monkeypatch):
    stream = io.StringIO()
    with Progress(console=Console(file=stream, force_terminal=True)) as bars:
        display = BarDisplay(bars)
        display.advance()  # before any stage
        display.begin(2)
        display.frame_ends(7, 4, 1.0)
        display.frame_ends(3, 1, 1.0)
        (task,) = bars.tasks
        assert task.fields["counts"] == "2 of 2, 5 of 10 candidates kept"
        assert task.finished


def test_the_terminal_decides(monkeypatch, capsys):
    with terminal_display() as display:
        assert isinstance(display, PlainDisplay)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with terminal_display() as display:
        assert isinstance(display, BarDisplay)
        display.begin(1)


def code_of(error: BaseException, debug: bool = False) -> int:
    with pytest.raises(typer.Exit) as caught, guarded(debug):
        raise error
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CheckpointError("a.pt is\ndamaged."), 2, "Error: a.pt is damaged.\n"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), 2, "Error: x.png: No such file or directory.\n"),
        (KeyboardInterrupt(), 1, "Error: Stopped.\n"),
        (MemoryError(), 1, "Error: There is not enough memory"),
        (ZeroDivisionError("division by zero"), 1, "Error: This is a defect in sam2-fewshot, please report it: Zero"),
        (OSError("odd"), 1, "Error: This is a defect"),
        (OSError(28, "No space left on device"), 1, "Error: A disk, a file or the network has failed: no space left"),
    ],
)
def test_errors_are_one_line(capsys, error, code, said):
    assert code_of(error) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(said)
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""


def test_debug_shows_where_and_the_sentence_comes_last(capsys):
    code_of(ValueError("odd"), debug=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("Error: This is a defect")


def test_exits_pass():
    with pytest.raises(typer.Exit) as caught, guarded():
        raise typer.Exit(7)
    assert caught.value.exit_code == 7


def test_terminated_like_interrupted():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as caught, guarded():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_may_use_it(capsys):
    with ThreadPoolExecutor(1) as pool:  # Python allows signal handlers in the main thread only
        assert pool.submit(code_of, CheckpointError("no.")).result() == 2


def test_other_libraries_are_quiet(capsys):
    before = list(logging.getLogger().handlers)
    with guarded():
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        warnings.warn("deprecated", UserWarning, stacklevel=1)
        logging.getLogger("tifffile").error("shaped metadata")
        warnings.warn("ours", FewShotWarning, stacklevel=1)
    assert capsys.readouterr().err == "Warning: ours\n"
    assert logging.getLogger().handlers == before


def test_report_when_nothing_was_found(capsys, tmp_path):
    outline = box(0, 0, 5, 5)
    below = Detection(polygon_to_mask(outline, (9, 9)), outline, 0.3, 0.3, 0.9)
    record = FrameRecord("a.png", "a", Location(), (9, 9), candidates=9)
    summary = Summary(tmp_path, 1, 1, 0, 9, {"propose": 2.0}, records=lambda: iter([replace(record, below=(below,))]))
    report(summary, Settings())
    captured = capsys.readouterr()
    assert "Found 0 objects among 9 candidates on 1 frame." in captured.out
    assert "Lower --similarity-threshold" in captured.out
    assert captured.err == ""
    report(summary, Settings(threshold_mode="auto"))
    assert "Choose --threshold-mode fixed and a low --similarity-threshold" in capsys.readouterr().out
    report(replace(summary, records=lambda: iter([record])), Settings())
    printed = capsys.readouterr().out
    assert "Nothing resembles the examples enough. Nothing there lies below the threshold, so a lower one" in printed
    assert "mark some of them as further examples." in printed
    assert "--similarity-threshold" not in printed
    report(Summary(tmp_path, 1, 1, 0, 0, {}), Settings())
    assert "Nothing was even proposed" in capsys.readouterr().out


def test_report_when_stopped_and_failed(capsys, tmp_path):
    report(Summary(tmp_path, 9, 2, 0, 5, {}, counts=Counts(found=1), interrupted=True), Settings())
    captured = capsys.readouterr()
    assert "Found 1 object among 5 candidates on 2 frames." in captured.out
    assert captured.err == "Stopped: 2 of 9 frames are finished and kept; the same command goes on from there.\n"
    report(Summary(tmp_path, 9, 5, 0, 0, {}, assembled=False, interrupted=True), Settings())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Stopped: 5 of 9 frames are finished and kept;")
    report(Summary(tmp_path, 9, 0, 0, 0, {}, failures=[Failure("a.png", "it is damaged.")]), Settings())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[0] == "Error: a.png: it is damaged."
