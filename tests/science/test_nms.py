from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import nms

from sam2_fewshot.geometry.overlap import box_nms

BOXES = st.lists(
    st.tuples(*[st.integers(0, 12)] * 4, st.sampled_from([0.25, 0.5, 0.75])).map(
        lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3], v[4])
    ),
    max_size=25,
)


@given(BOXES, st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_it_keeps_what_torchvision_keeps(rows: list[tuple[float, ...]], threshold: float) -> None:
    table = np.array(rows, float).reshape(-1, 5)
    ours = box_nms(table[:, :4], table[:, 4], threshold)
    theirs = nms(torch.tensor(table[:, :4]), torch.tensor(table[:, 4]), threshold)
    assert ours.tolist() == theirs.tolist()
