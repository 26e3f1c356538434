"""Words for the sentences that users read and the commands that they copy."""

from __future__ import annotations

from subprocess import list2cmdline
from typing import TYPE_CHECKING

import pytest

from sam2_fewshot.errors import InputError, command_line, counted, listed, needed, were

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (1200, "1,200 frames")]
)
def test_a_number_of_things_has_its_plural(number: int, words: str) -> None:
    assert counted(number, "frame") == words


def test_and_its_verb() -> None:
    assert [were(number, "file") for number in (1, 2)] == ["1 file was", "2 files were"]


def test_of_many_names_the_first_are_listed() -> None:
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c"], 2) == "a, b, …"
    assert listed(["a", "b", "c"], 1, "; ", with_rest=True) == "a; and 2 more"
    assert listed(["a", "b"], 2, "; ", with_rest=True) == "a; b"


@pytest.mark.parametrize(
    ("word", "windows", "posix"),
    [
        (r"C:\plates\day_1", r"C:\plates\day_1", r"'C:\plates\day_1'"),
        ("my results", '"my results"', "'my results'"),
        ("D:\\a & b\\", '"D:\\a & b\\\\"', "'D:\\a & b\\'"),
        ("Tom's", '"Tom\'s"', """'Tom'"'"'s'"""),
        ("coco,roi", '"coco,roi"', "coco,roi"),  # PowerShell takes a comma for a list
        ('a "b"', r'"a \"b\""', "'a \"b\"'"),
        ("", '""', "''"),
        ("--min-mask-area", "--min-mask-area", "--min-mask-area"),
    ],
)
def test_a_command_is_quoted_for_the_system_that_it_is_typed_on(word: str, windows: str, posix: str) -> None:
    assert command_line(["refine", word], windows=True) == f"refine {windows}"
    assert command_line(["refine", word], windows=False) == f"refine {posix}"
    if " " in word:
        assert windows == list2cmdline([word])  # how programs on Windows are given their arguments


def test_a_package_that_is_there_is_imported() -> None:
    assert needed("This", "json", "extra").loads("1") == 1


@pytest.mark.parametrize("content", [None, "import another_that_is_missing"])
def test_a_package_that_is_missing_or_lacks_something_is_named_with_its_extra(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content:
        (tmp_path / "reader_of_it.py").write_text(content)
        monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as caught:
        needed("a.nd2: ND2", "reader_of_it", "nd2")
    said = 'a.nd2: ND2 needs the package reader_of_it, which is not installed: pip install "sam2-fewshot[nd2]".'
    assert str(caught.value) == said
