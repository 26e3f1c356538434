"""A contract server, and a bench with a small dataset on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from contract_server.bench import DISCS, Bench, discs, ring, white_layer
from contract_server.store import Image
from contract_server.web import ContractServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[ContractServer]:
    with ContractServer() as running:
        yield running


@pytest.fixture
def bench(server: ContractServer) -> Bench:
    """Three positions with four discs each; two discs of the first are examples."""
    image = Image({(xy, 0, 0, 0): discs(xy) for xy in range(3)})
    dataset = server.store.add_dataset(image, [white_layer()])
    for row, column in DISCS[:2]:
        server.store.add_annotation(dataset, tags=["cell"], coordinates=ring(row, column))
    return Bench(server, dataset)
