"""The whole way: the container's door, real HTTP, the embedded network."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from contract_server.bench import CACHED, ring, white_layer
from contract_server.store import Image

from sam2_fewshot import Exemplar, FewShotSegmenter, Settings
from sam2_fewshot.nimbus.entry import main
from sam2_fewshot.records import Frame, Location
from sam2_fewshot.rendering.channels import merge
from sam2_fewshot.rendering.contrast import ChannelStyle

if TYPE_CHECKING:
    from contract_server.web import ContractServer
    from shapely import Polygon

MICRO = "sam2.1_hiera_micro.pt"
SIDE = 128
CENTRES = [(24, 24), (24, 88), (64, 56), (100, 24), (98, 100)]
LAYERS = [
    white_layer(id="a", color="#0000FF", contrast={"mode": "absolute", "blackPoint": 100, "whitePoint": 3000}),
    white_layer(id="b", channel=1, color="#00FF00", contrast={"mode": "absolute", "blackPoint": 0, "whitePoint": 900}),
]


def plane(xy: int, z: int, time: int, channel: int) -> np.ndarray:
    """Blurred discs that move with the place, on a noisy ground."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    noise = np.random.default_rng([xy, z, time, channel]).normal(0, 20, (SIDE, SIDE))
    out = 200 + noise
    for row, column in CENTRES[: 5 - xy]:
        distance = np.hypot(rows - row - 3 * z, columns - column - 4 * time)
        out += (2500 if channel == 0 else 500) / (1 + np.exp((distance - 10) / 1.2))
    return out.clip(0, 65535).astype(np.uint16)


def dataset(server: ContractServer, sizes: tuple[int, int, int]) -> tuple[str, Image]:
    xys, slices, times = sizes
    keys = [(xy, z, t, c) for xy in range(xys) for t in range(times) for z in range(slices) for c in range(2)]
    image = Image({key: plane(*key) for key in keys}, ["DAPI", "GFP"])
    made = server.store.add_dataset(image, LAYERS)
    for row, column in CENTRES:
        server.store.add_annotation(made, tags=["cell"], coordinates=ring(row, column, 10))
    return made, image


def arguments(server: ContractServer, made: str, request: str = "compute", **form: Any) -> list[str]:
    parameters = {
        "image": "annotations/sam2_fewshot:latest",
        "tags": ["nucleus"],
        "channel": 1,
        "connectTo": {"tags": [], "channel": None},
        "workerInterface": {"Training Tag": ["cell"], "Model": MICRO, **form},
    }
    door = ["--apiUrl", server.url, "--token", server.token, "--request", request]
    door += ["--parameters", json.dumps(parameters)]
    return door if request == "interface" else [*door, "--datasetId", made]


def on_arrays(image: Image, locations: list[Location]) -> dict[Location, list[Polygon]]:
    """The same, by a segmenter on arrays in memory."""
    styles = [ChannelStyle((0, 0, 255), "absolute", 100, 3000), ChannelStyle((0, 255, 0), "absolute", 0, 900)]

    def pixels(place: Location) -> np.ndarray:
        return merge([image.planes[(place.xy, place.z, place.time, c)] for c in range(2)], styles)

    from shapely import Polygon

    first = Frame(pixels(Location()))
    segmenter = FewShotSegmenter(MICRO, settings=Settings())
    outlines = [[(point["x"], point["y"]) for point in ring(row, column, 10)] for row, column in CENTRES]
    segmenter.fit([Exemplar(image=first, polygon=Polygon(outline)) for outline in outlines])
    return {place: [d.polygon for d in segmenter.segment(Frame(pixels(place)))] for place in locations}


def check(server: ContractServer, image: Image, locations: list[Location]) -> None:
    expected = on_arrays(image, locations)
    stored: dict[Location, set[tuple[tuple[float, float], ...]]] = {place: set() for place in locations}
    store = server.store
    found = [each for each in store.annotations.values() if each["tags"] == ["nucleus"]]
    for each in found:
        place = each["location"]
        outline = tuple((point["x"], point["y"]) for point in each["coordinates"])
        stored[Location(place["XY"], place["Z"], place["Time"])].add(outline)
        assert each["channel"] == 1
    assert sum(map(len, stored.values())) == len(found)
    for place, polygons in expected.items():
        assert stored[place] == {tuple(polygon.exterior.coords)[:-1] for polygon in polygons}
    assert sum(map(len, expected.values())) >= 2
    assert {value["annotationId"] for value in store.values} == {each["_id"] for each in found}


@pytest.mark.filterwarnings("ignore:. examples tell little:sam2_fewshot.errors.FewShotWarning")
def test_a_job_through_the_door(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    made, image = dataset(server, (1, 1, 2))
    assert main(arguments(server, made, **{"Batch Time": "all"})) == 0
    check(server, image, [Location(0, 0, 0), Location(0, 0, 1)])
    written = capsys.readouterr().out
    assert server.token not in written
    assert json.loads(written.splitlines()[-1])["title"] == "Done"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:. examples tell little:sam2_fewshot.errors.FewShotWarning")
def test_two_channels_positions_slices_and_times(server: ContractServer, capsys: pytest.CaptureFixture[str]) -> None:
    made, image = dataset(server, (2, 2, 2))
    assert main(arguments(server, made, "interface")) == 0
    form = server.store.interfaces["annotations/sam2_fewshot:latest"]
    assert {"Training Tag", "Model", "Similarity Threshold"} <= set(form)
    everything = {"Batch XY": "all", "Batch Z": "1-2", "Batch Time": "1, 2"}
    seen = len(server.seen)
    assert main(arguments(server, made, **everything)) == 0
    locations = [Location(xy, z, t) for xy in range(2) for z in range(2) for t in range(2)]
    check(server, image, locations)
    pixels = server.count("GET", "tiles/region")
    assert pixels == 16
    beyond = len(server.seen) - seen - pixels
    assert beyond <= 24 + 3 * len(locations)  # what is read and registered once, and three a frame
    before = set(server.store.annotations)
    assert main(arguments(server, made, **everything)) == 0
    assert set(server.store.annotations) == before
    assert CACHED in capsys.readouterr().out


def test_the_job_module_leaves_torch_to_the_backbone() -> None:
    code = "import sys, sam2_fewshot.nimbus.job; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
