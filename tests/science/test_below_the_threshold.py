"""What lies below the threshold is reported too, so that it can be moved without searching again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from sam2_fewshot.protocols import Backbone

Discs = tuple["NDArray[np.uint8]", "NDArray[np.int32]"]


@pytest.mark.filterwarnings("ignore:. examples tell little:sam2_fewshot.errors.FewShotWarning")
def test_another_threshold_divides_the_same_detections(filters: Backbone, discs: Discs, tmp_path: Path) -> None:
    image, labels = discs
    low = FewShotSegmenter(filters, settings=Settings(similarity_threshold=0.4))
    low.fit([Exemplar(image, mask=labels == number) for number in (1, 3, 5)])
    low.save(tmp_path / "discs.npz")
    found = low.segment(image)
    high = FewShotSegmenter.load(tmp_path / "discs.npz", filters, settings=Settings(similarity_threshold=0.95))
    result = high.predict(image)
    above, below, floor = result.detections, result.below, result.floor
    assert floor == pytest.approx(0.095)
    assert all(item.score >= 0.95 for item in above)
    assert all(floor <= item.score < 0.95 for item in below)
    assert below
    both = [(item.score, item.bbox) for item in (*above, *below)]
    assert [entry for entry in both if entry[0] >= 0.4] == [(item.score, item.bbox) for item in found]
