"""The stand-in of these tests for an encoder computes nothing twice, and takes nothing for what it is not."""

from __future__ import annotations

import torch

from encoded_once import KEPT, EncodedOnce


def test_only_the_very_same_batch_is_not_encoded_again() -> None:
    batches: list[int] = []

    def encode(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batches.append(len(images))
        return (images + 1, images.mean((2, 3)))

    encoder = EncodedOnce(encode)
    images = torch.rand(2, 3, 4, 4)
    first = encoder(images)
    first[0].zero_()  # a copy
    assert torch.equal(encoder(images.clone())[0], images + 1)
    assert batches == [2]
    for other in (images.flip(0), images[:1], images.reshape(2, 3, 2, 8), images + 1e-6):
        assert torch.equal(encoder(other)[0], other + 1)
    assert batches == [2, 2, 1, 2, 2]
    for number in range(KEPT):
        encoder(torch.full((1, 3, 4, 4), float(number)))
    encoder(images)
    assert batches[-1] == 2
    assert len(batches) == 5 + KEPT + 1
