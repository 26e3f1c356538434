"""Words for the sentences that users read."""

from __future__ import annotations

import pytest

from sam2_fewshot.errors import counted, listed, were


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
