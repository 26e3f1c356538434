"""How often about the same thing was proposed."""

from __future__ import annotations

import numpy as np
import pytest

from sam2_fewshot.methods.guided.descriptors import Proposed, support
from sam2_fewshot.records import InstanceMask

SHAPE = (100, 120)


def square(x: int, y: int, side: int) -> InstanceMask:
    return InstanceMask(np.ones((side, side), bool), x, y, SHAPE)


def once(masks: list[InstanceMask]) -> Proposed:
    return Proposed([], np.zeros(0, np.int64)).and_once(masks)


def counted(masks: list[InstanceMask], among: list[InstanceMask]) -> list[float]:
    return np.expm1(support(masks, once(among))).round(6).tolist()


def test_each_counts_as_often_as_it_was_proposed() -> None:
    cuts = [square(20, 20, 20), square(21, 21, 18)]
    assert np.expm1(support(cuts, Proposed(cuts, np.array([4, 3])))) == pytest.approx([7, 7])


def test_what_many_cuts_agree_on_has_support_and_its_parts_have_none() -> None:
    cuts = [square(20, 20, 20), square(21, 21, 18), square(19, 19, 22), square(20, 20, 8), square(70, 70, 20)]
    assert counted(cuts, cuts) == [3, 3, 3, 1, 1]
    assert counted([square(22, 22, 18), square(90, 5, 9)], cuts) == [3, 0]


def test_a_box_alone_is_not_enough() -> None:
    thin = np.eye(20, dtype=bool)
    assert counted([square(20, 20, 20)], [InstanceMask(thin, 20, 20, SHAPE)]) == [0]
    assert counted([InstanceMask(thin, 20, 20, SHAPE)], [InstanceMask(thin[::-1].copy(), 20, 20, SHAPE)]) == [1]


@pytest.mark.parametrize(("masks", "among"), [([], []), ([], [square(0, 0, 3)])])
def test_of_nothing_there_is_nothing(masks: list[InstanceMask], among: list[InstanceMask]) -> None:
    assert support(masks, once(among)).shape == (0,)


def test_without_candidates_nothing_is_supported() -> None:
    assert counted([square(0, 0, 3)], []) == [0]


def test_the_number_of_pairs_near_one_another_is_counted_not_the_touching_ones() -> None:
    assert counted([square(10, 10, 10)], [square(20, 10, 10), square(10, 20, 10), square(13, 10, 10)]) == [1]
