from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as reference
from skimage.draw import polygon as points_inside

from sam2_fewshot.geometry.outlines import AT_ONCE, crop_to_object, fill_rings, mask_to_area, polygon_to_mask
from sam2_fewshot.geometry.run_lengths import compress, decode, encode, expand
from sam2_fewshot.records import InstanceMask


@settings(max_examples=60)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30)))
def test_codes_are_those_of_pycocotools(mask):
    counts = encode(crop_to_object(mask))
    expected = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert compress(counts).encode() == expected["counts"]
    assert (expand(compress(counts)) == counts).all()
    assert (decode(counts, mask.shape).full() == mask).all()


def test_long_counts():
    data = np.ones((1, 1), bool)
    counts = encode(InstanceMask(data, 19_999, 19_999, (20_000, 20_000)))
    assert counts.tolist() == [20_000 * 20_000 - 1, 1]
    assert (expand(compress(counts)) == counts).all()
    assert decode(counts, (20_000, 20_000)).box == (19_999, 19_999, 20_000, 20_000)


@pytest.mark.parametrize("text", ["", "é", " ", "~", "P", "PPPPPPPPPPPPPPP0"])
def test_what_is_no_code_is_refused(text):
    with pytest.raises(ValueError, match="its text"):
        expand(text)


@pytest.mark.parametrize("counts", [[3], [2, 3], [-1, 5], [10**12], [0, 0, 0]])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match="count"):
        decode(np.array(counts, np.int64), (2, 2))


def test_counts_of_nothing_give_an_empty_mask():
    assert decode(np.array([4, 0]), (2, 2)).area == 0


def filled(x, y, shape, at_once=AT_ONCE):
    """Pixels in one ring."""
    return fill_rings([np.column_stack([x, y])], [shape], at_once)[0]


@settings(max_examples=150)
@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 25)), min_size=3, max_size=9),
)
@example(1, 3, [(0.0, 0.0), (0.0, -4.0), (2.0, 0.0)])
def test_rings_are_filled_as_by_scikit_image(height, width, corners):
    # No centre lies on the ring, where the other implementation leaves out some: moved by amounts whose ratio is not
    # rational, no edge between rounded corners meets one.
    x, y = (np.round(np.array(corners)[:, axis], 2) + 0.00337 * 2 ** (axis / 2) for axis in (0, 1))
    expected = np.zeros((height, width), bool)
    expected[points_inside(y, x, (height, width))] = True
    assert (filled(x, y, (height, width)) == expected).all()


def test_centres_on_the_ring_are_inside():
    x, y = np.array([1.0, 4.0, 4.0, 1.0]), np.array([1.0, 1.0, 3.0, 3.0])
    assert np.argwhere(filled(x, y, (6, 6))).tolist() == [[r, c] for r in (1, 2, 3) for c in (1, 2, 3, 4)]


def test_a_long_ring_is_filled_in_parts():
    angle = np.linspace(0, 2 * np.pi, 400)
    x, y = 60 + 59 * np.cos(angle), 60 + (59 - 20 * (np.arange(400) % 2)) * np.sin(angle)
    at_once = filled(x, y, (120, 120))
    assert (filled(x, y, (120, 120), at_once=100) == at_once).all()
    assert at_once[60, 60]


def test_an_area_has_its_holes():
    data = np.ones((9, 12), bool)
    data[2:4, 2:5] = data[6, 7] = False
    instance = InstanceMask(data, 3, 4, (30, 40))
    area = mask_to_area(instance)
    assert len(area.interiors) == 2
    assert (polygon_to_mask(area, (30, 40)).full() == instance.full()).all()
    with pytest.raises(ValueError, match="empty"):
        mask_to_area(InstanceMask(np.zeros((2, 2), bool), 0, 0, (9, 9)))
