from __future__ import annotations

import re

import pytest

from sam2_fewshot.backbones.sam2.checkpoints import (
    BASE_PLUS,
    CHECKPOINTS,
    MICRO,
    NAMES,
    SAM2_GATES,
    TINY,
    Checkpoint,
    find,
)


def test_the_seeds_default_comes_first_and_the_embedded_one_last() -> None:
    assert NAMES == (
        "sam2.1_hiera_base_plus.pt",
        "sam2.1_hiera_large.pt",
        "sam2.1_hiera_small.pt",
        "sam2.1_hiera_tiny.pt",
        "sam2.1_hiera_micro.pt",
    )


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda checkpoint: checkpoint.short_name)
def test_every_name_of_a_checkpoint_finds_it(checkpoint: Checkpoint) -> None:
    names = (checkpoint.name, checkpoint.name.removesuffix(".pt"), checkpoint.short_name)
    assert [find(name) for name in names] == [checkpoint] * 3


def test_an_unknown_name_finds_nothing() -> None:
    assert find("huge") is None
    assert find("") is None


def test_what_can_be_downloaded_has_a_hash_and_a_size() -> None:
    for checkpoint in CHECKPOINTS:
        if checkpoint is MICRO:
            assert checkpoint.url is checkpoint.sha256 is checkpoint.download_size is None
            continue
        assert re.fullmatch("[0-9a-f]{64}", str(checkpoint.sha256))
        assert checkpoint.url == f"https://dl.fbaipublicfiles.com/segment_anything_2/092824/{checkpoint.name}"
        assert checkpoint.gates == SAM2_GATES


def test_the_download_size_is_exact_where_it_was_measured_and_close_elsewhere() -> None:
    assert BASE_PLUS.download_size == 323_606_802
    assert TINY.download_size == pytest.approx(156e6, rel=0.01)
    assert pytest.approx(BASE_PLUS.size, rel=0.01) == (BASE_PLUS.parameters or 0) * 4e6


def test_the_embedded_checkpoint_has_looser_gates() -> None:
    assert MICRO.gates.predicted_iou < SAM2_GATES.predicted_iou
    assert MICRO.gates.stability == SAM2_GATES.stability
