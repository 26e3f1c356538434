"""Frames as the app shows them: compared with the official client's composite of the same dataset."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import nimbusimage
import numpy as np
import pytest
from contract_server.bench import QUICK, discs, white_layer
from contract_server.store import Image

from sam2_fewshot.annotations.placing import Placer, Remarks, Unusable
from sam2_fewshot.errors import InputError, ServerError
from sam2_fewshot.nimbus.dataset import NimbusDataset
from sam2_fewshot.nimbus.server import Server
from sam2_fewshot.records import FrameReader, Location
from sam2_fewshot.rendering.channels import as_reader, merge
from sam2_fewshot.rendering.contrast import ChannelStyle
from sam2_fewshot.settings import Settings
from told import Told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from contract_server.web import ContractServer

Opened = "Callable[..., NimbusDataset]"
RNG = np.random.default_rng(5)
HERE = Location(1, 1, 0)


def stack(dtype: str = "uint16", shape: tuple[int, int] = (20, 30)) -> Image:
    """Two channels, two positions, two slices, two times of noise."""
    high = {"uint8": 256, "uint16": 4000, "float32": 900}[dtype]
    keys = [(xy, z, t, c) for xy in range(2) for t in range(2) for z in range(2) for c in range(2)]
    return Image({key: RNG.integers(3, high, shape).astype(dtype) for key in keys})


@pytest.fixture
def opened(server: ContractServer) -> Iterator[Callable[..., NimbusDataset]]:
    """Opens a dataset; warnings are kept in `opened.warnings`."""
    with Server(server.url, server.token, QUICK) as connection:
        warnings: list[str] = []

        def make(image: Image, layers: list[dict[str, Any]] | None = None, **options: Any) -> NimbusDataset:
            dataset = server.store.add_dataset(image, layers, view=options.pop("view", True))
            for view in server.store.views:
                view.update(options.pop("changes", {}))
            return NimbusDataset(connection, dataset, Settings(), warnings.append, **options)

        make.warnings = warnings  # type: ignore[attr-defined]
        yield make


def two_layers(**of_second: Any) -> list[dict[str, Any]]:
    percent = {"mode": "percentile", "blackPoint": 3, "whitePoint": 91.5}
    return [
        white_layer(id="a", color="#0000FF", contrast=percent),
        white_layer(id="b", channel=1, color="#00FF00", **of_second),
    ]


CASES = {
    "absolute and percentile": two_layers(),
    "two layers of one channel": [*two_layers(), white_layer(id="c", channel=1, color="rgb(255, 0, 9)")],
    "an invisible one": two_layers(visible=False),
    "constant": two_layers(z={"type": "constant", "value": 0}),
    "offset": two_layers(time={"type": "offset", "value": 1}),
    "offset beyond": two_layers(xy={"type": "offset", "value": 5}),
    "max-merge": two_layers(
        z={"type": "max-merge", "value": None}, contrast={"mode": "percentile", "blackPoint": 10, "whitePoint": 60}
    ),
    "max-merge of three axes": two_layers(
        z={"type": "max-merge"}, xy={"type": "max-merge"}, time={"type": "max-merge"}, contrast={}
    ),
    "channel that is not there": [*two_layers(), white_layer(id="d", channel=7)],
    "negative black point": two_layers(contrast={"mode": "absolute", "blackPoint": -500, "whitePoint": 9000}),
    "flat contrast": two_layers(contrast={"mode": "absolute", "blackPoint": 800, "whitePoint": 800}),
}


@pytest.mark.parametrize("dtype", ["uint16", "uint8", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_a_frame_is_what_the_official_client_draws(
    server: ContractServer, opened: Callable[..., NimbusDataset], case: str, dtype: str
) -> None:
    dataset = opened(stack(dtype), CASES[case])
    pixels = dataset.frame(HERE).read()
    if case.startswith("max-merge"):  # the client lets the server draw these, which this server cannot
        expected = _by_hand(server, CASES[case], dataset)
    elif case == "flat contrast":  # the client divides by one there: a step of one intensity
        expected = _drawn(server, CASES[case][:1], dataset)
    else:
        expected = _drawn(server, CASES[case], dataset)
    assert np.abs(pixels - expected).max() <= 0.5 + 1e-6


def _drawn(server: ContractServer, layers: list[dict[str, Any]], dataset: NimbusDataset) -> np.ndarray:
    next(iter(server.store.collections.values()))["meta"]["layers"] = layers
    client = nimbusimage.connect(server.url, token=server.token).dataset(dataset.id)
    drawn = client.images.get_composite(xy=HERE.xy, z=HERE.z, time=HERE.time, dtype="float64")
    return np.asarray(drawn) * 255


def _by_hand(server: ContractServer, layers: list[dict[str, Any]], dataset: NimbusDataset) -> np.ndarray:
    """Draw the second layer's projection between shares of the current plane's range, over the first layer."""
    planes = next(iter(server.store.images.values())).planes
    second = layers[1]
    axes = [(second.get(key) or {}).get("type") == "max-merge" for key in ("xy", "z", "time")]
    here = (HERE.xy, HERE.z, HERE.time)
    merged = [p for k, p in planes.items() if k[3] == 1 and all(a or k[i] == here[i] for i, a in enumerate(axes))]
    current = planes[(*here, 1)].astype(float)
    low, high = current.min(), current.max()
    contrast = second["contrast"]
    black, white = (
        np.floor(low + contrast.get(name, default) / 100 * (high - low) + 0.5)
        for name, default in (("blackPoint", 0), ("whitePoint", 100))
    )
    drawn = _drawn(server, layers[:1], dataset)
    drawn[..., 1] = np.clip((np.max(merged, axis=0) - black) / (white - black), 0, 1) * 255
    return drawn


def test_the_views_contrast_goes_over_the_layers(opened: Callable[..., NimbusDataset]) -> None:
    contrast = {"mode": "absolute", "blackPoint": 0, "whitePoint": 400}
    dataset = opened(Image({(0, 0, 0, 0): discs()}), [white_layer()], changes={"layerContrasts": {"layer-1": contrast}})
    assert set(np.unique(dataset.frame(Location()).read())) == {64, 128}


def test_the_users_own_view_goes_before_another_ones(
    server: ContractServer, opened: Callable[..., NimbusDataset]
) -> None:
    image = Image({(0, 0, 0, 0): discs()})
    dataset_id = server.store.add_dataset(image, [white_layer(color="#FF0000")])
    own = server.store.views.pop()
    server.store.views.append({**own, "owner": "somebody else", "configurationId": "f" * 24})
    server.store.views.append(own)
    with Server(server.url, server.token, QUICK) as connection:
        dataset = NimbusDataset(connection, dataset_id, Settings(), pytest.fail)
        assert dataset.frame(Location()).read()[14, 14].tolist() == [255, 0, 0]
        server.store.views.remove(own)
        warnings: list[str] = []
        dataset = NimbusDataset(connection, dataset_id, Settings(), warnings.append)
        assert warnings == [
            "The layers of this dataset cannot be read, so its channels are shown in colours of our own."
        ]
        assert dataset.frame(Location()).read()[14, 14].tolist() == [255, 255, 255]


@pytest.mark.parametrize("others", [False, True], ids=["a view of their own", "another one's view"])
def test_a_view_that_cannot_be_read_gives_way_to_the_next(server: ContractServer, others: bool) -> None:
    red, gone = white_layer(color="#FF0000"), "f" * 24
    contrast = {"mode": "absolute", "blackPoint": 0, "whitePoint": 400}
    dataset_id = server.store.add_dataset(Image({(0, 0, 0, 0): discs()}), [red])
    (readable,) = server.store.views
    first = {**readable, "configurationId": gone, "layerContrasts": {"layer-1": {"mode": "percentile"}}}
    readable["layerContrasts"] = {"layer-1": contrast}
    if others:
        readable["owner"] = "somebody else"
    server.store.views[:] = [first, readable, dict(first), dict(readable)]
    with Server(server.url, server.token, QUICK) as connection:
        dataset = NimbusDataset(connection, dataset_id, Settings(), pytest.fail)
    assert dataset.frame(Location()).read()[14, 14].tolist() == [128, 0, 0]
    assert dataset.collections == [readable["configurationId"]]
    assert server.count("GET", gone) == 1


def test_of_several_own_views_that_of_the_tool_is_taken(server: ContractServer) -> None:
    """The second of three, whose layers differ from those of the first."""
    dataset_id = server.store.add_dataset(Image({(0, 0, 0, 0): discs()}), [white_layer(color="#FF0000")])
    (first,) = server.store.views
    server.store.collections[first["configurationId"]]["name"] = "mine"
    for tool, color in (("a" * 8, "#00FF00"), ("b" * 8, "#FF0000")):
        key = server.store.new_id()
        meta = {"layers": [white_layer(color=color)], "tools": [{"id": tool}]}
        server.store.collections[key] = {"_id": key, "name": tool, "meta": meta}
        server.store.views.append({**first, "_id": server.store.new_id(), "configurationId": key})
    keys = [view["configurationId"] for view in server.store.views]
    with Server(server.url, server.token, QUICK) as connection:
        dataset = NimbusDataset(connection, dataset_id, Settings(), pytest.fail, tool="a" * 8)
        assert dataset.frame(Location()).read()[14, 14].tolist() == [0, 255, 0]
        assert dataset.collections == [keys[1], keys[0], keys[2]]
        warnings: list[str] = []
        dataset = NimbusDataset(connection, dataset_id, Settings(), warnings.append, tool="c" * 8)
        assert dataset.frame(Location()).read()[14, 14].tolist() == [255, 0, 0]
        assert dataset.collections == keys
        assert warnings == [
            "Several of your collections show this dataset with other layers or another contrast; those of 'mine' are "
            "taken. To have those of another one, run a tool that is saved in it."
        ]
        del server.store.views[1]  # the two that are left show the same
        NimbusDataset(connection, dataset_id, Settings(), pytest.fail)


def test_that_of_the_tool_is_taken_of_more_views_than_a_list_of_the_server_has(server: ContractServer) -> None:
    dataset_id = server.store.add_dataset(Image({(0, 0, 0, 0): discs()}), [white_layer(color="#FF0000")])
    (first,) = server.store.views
    server.store.views += [{**first, "_id": server.store.new_id()} for _ in range(50)]
    key = server.store.new_id()
    meta = {"layers": [white_layer(color="#00FF00")], "tools": [{"id": "a" * 8}]}
    server.store.collections[key] = {"_id": key, "name": "mine", "meta": meta}
    server.store.views.append({**first, "_id": server.store.new_id(), "configurationId": key})
    with Server(server.url, server.token, QUICK) as connection:
        dataset = NimbusDataset(connection, dataset_id, Settings(), pytest.fail, tool="a" * 8)
        assert dataset.frame(Location()).read()[14, 14].tolist() == [0, 255, 0]


def test_percentiles_that_layers_leave_without_effect_are_said(server: ContractServer) -> None:
    dataset_id = server.store.add_dataset(Image({(0, 0, 0, 0): discs()}), [white_layer()])
    bare = server.store.add_dataset(Image({(0, 0, 0, 0): discs()}), view=False)
    changed = Settings().changed({"white_percentile": 60})
    warnings: list[str] = []
    with Server(server.url, server.token, QUICK) as connection:
        NimbusDataset(connection, dataset_id, Settings(), pytest.fail)
        NimbusDataset(connection, bare, changed, pytest.fail)
        NimbusDataset(connection, dataset_id, changed, warnings.append)
    assert warnings == [
        "Black Percentile and White Percentile have no effect, because the layers of this dataset have a contrast of "
        "their own. Change it in the app."
    ]


@pytest.mark.parametrize("view", [True, False])
def test_without_layers_channels_are_shown_as_those_of_image_files(
    opened: Callable[..., NimbusDataset], view: bool
) -> None:
    image = stack()
    dataset = opened(image, view=view)
    styles = [ChannelStyle((0, 255, 0)), ChannelStyle((255, 0, 255))]
    expected = merge([image.planes[(1, 1, 0, c)] for c in range(2)], styles)
    assert (dataset.frame(HERE).read() == expected).all()


def test_objects_are_put_on_the_frames_that_there_are(opened: Callable[..., NimbusDataset]) -> None:
    dataset = opened(stack())
    placer = Placer(dataset, Remarks("Examples", Told()))
    assert placer.frame(HERE) is dataset.frame(HERE)
    with pytest.raises(Unusable, match=r"^at an XY, Z or Time that this dataset does not have$"):
        placer.frame(Location(2))


def test_a_single_plane_without_index_is_a_dataset_of_one(opened: Callable[..., NimbusDataset]) -> None:
    dataset = opened(Image({(0, 0, 0, 0): discs()}), [white_layer()])
    assert (dataset.size.xy, dataset.size.z, dataset.size.time, dataset.size.channels) == (1, 1, 1, 1)
    assert dataset.name(Location()) == "the image"
    assert isinstance(dataset.frame(Location()), FrameReader)
    assert dataset.frame(Location()).read().max() == 255


@pytest.mark.parametrize(("bands", "dtype"), [(3, "uint8"), (4, "uint8"), (2, "uint8"), (1, "uint8"), (3, "uint16")])
def test_colour_bands(opened: Callable[..., NimbusDataset], bands: int, dtype: str) -> None:
    pixels = RNG.integers(30, 90, (20, 30, bands)).astype(dtype)
    shown = opened(Image({(0, 0, 0, 0): pixels}), view=False).frame(Location()).read()
    as_array = as_reader(pixels[..., :3] if bands >= 3 else pixels[..., 0], Settings())
    assert np.array_equal(shown, as_array.read())
    contrast = {"mode": "absolute", "blackPoint": 0, "whitePoint": 255}
    layered = opened(Image({(0, 0, 0, 0): pixels}), [white_layer(contrast=contrast)]).frame(Location()).read()
    expected = pixels[..., :3] if bands >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    assert (layered == expected).all()


def test_each_plane_is_fetched_once(server: ContractServer, opened: Callable[..., NimbusDataset]) -> None:
    dataset = opened(stack(), CASES["max-merge of three axes"])
    for _ in range(2):
        for xy in range(2):
            for z in range(2):
                for time in range(2):
                    dataset.frame(Location(xy, z, time)).read()
    assert server.count("GET", "tiles/region") == 16


def test_little_memory_costs_requests_and_nothing_else(opened: Callable[..., NimbusDataset]) -> None:
    image = stack()
    plenty, little = opened(image, CASES["max-merge"]), opened(image, CASES["max-merge"], memory=1500)
    assert (plenty.frame(HERE).read() == little.frame(HERE).read()).all()


@pytest.mark.parametrize("case", ["absolute and percentile", "max-merge", "default"])
def test_large_frames_are_fetched_by_region(
    server: ContractServer, opened: Callable[..., NimbusDataset], case: str
) -> None:
    image = stack(shape=(50, 70))
    layers = CASES.get(case)
    whole = opened(image, layers).frame(HERE).read()
    dataset = opened(image, layers, block=16)
    first = len(server.seen)
    assert (dataset.frame(HERE).read((17, 20, 31, 30)) == whole[20:30, 17:31]).all()
    asked = [seen for seen in server.seen[first:] if seen.path.endswith("region") and "right" in seen.query]
    assert {(seen.query["left"], seen.query["right"], seen.query["bottom"]) for seen in asked} == {("16", "32", "32")}
    assert (dataset.frame(HERE).read() == whole).all()
    assert all(int(seen.query["right"]) - int(seen.query["left"]) <= 16 for seen in asked)


def test_strips_that_do_not_fit_into_the_memory_are_fetched_once(
    server: ContractServer, opened: Callable[..., NimbusDataset]
) -> None:
    image = stack(shape=(50, 70))
    whole = opened(image, CASES["max-merge"]).frame(HERE).read()
    frame = opened(image, CASES["max-merge"], block=16, memory=2000).frame(HERE)
    frame.read((0, 0, 16, 16))  # now it is known what a pixel takes
    first = len(server.seen)
    strips = [frame.read((0, top, 70, top + 5)) for top in range(0, 50, 5)]
    assert (np.concatenate(strips) == whole).all()
    asked = [seen.query for seen in server.seen[first:] if seen.path.endswith("region")]
    sides = [(int(q["right"]) - int(q["left"]), int(q["bottom"]) - int(q["top"])) for q in asked]
    frames = {q["frame"] for q in asked}
    assert sum(width * height for width, height in sides) == 50 * 70 * len(frames)
    assert all(width <= 16 and height == 5 for width, height in sides)


def test_an_image_without_a_histogram_still_has_a_contrast(
    server: ContractServer, opened: Callable[..., NimbusDataset]
) -> None:
    server.store.histogram = lambda item, query: []  # type: ignore[method-assign]
    image = stack(shape=(50, 70))
    whole = opened(image, two_layers()).frame(HERE).read()
    assert (opened(image, two_layers(), block=16).frame(HERE).read() == whole).all()


def test_unknown_colours_are_white_and_said(opened: Callable[..., NimbusDataset]) -> None:
    dataset = opened(Image({(0, 0, 0, 0): discs()}), [white_layer(color="mauvish"), white_layer(color=None)])
    assert [layer.style.color for layer in dataset.layers] == [(255, 255, 255)] * 2
    assert opened.warnings == ["The colour 'mauvish' of a layer is not known; the layer is taken as white."]  # type: ignore[attr-defined]


def test_all_layers_off_is_refused(opened: Callable[..., NimbusDataset]) -> None:
    with pytest.raises(InputError, match="All layers of this dataset are switched off"):
        opened(Image({(0, 0, 0, 0): discs()}), [white_layer(visible=False)])


def test_a_selected_image_that_is_gone_gives_way_to_one_that_is_there(
    server: ContractServer, opened: Callable[..., NimbusDataset]
) -> None:
    dataset = opened(Image({(0, 0, 0, 0): discs()}), [white_layer()])
    server.store.folders[dataset.id]["meta"]["selectedLargeImageId"] = "f" * 24
    with Server(server.url, server.token, QUICK) as connection:
        assert NimbusDataset(connection, dataset.id, Settings(), pytest.fail).shape == (64, 64)
        server.store.items.clear()
        with pytest.raises(InputError, match="This dataset has no image that NimbusImage can show"):
            NimbusDataset(connection, dataset.id, Settings(), pytest.fail)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Harmful()), "holds no pixels"),
        (pickle.dumps([1, 2]), "holds no pixels"),
        (b"no pickle", "holds no pixels"),
        (pickle.dumps(np.zeros((3, 3, 1))), r"sent 3 × 3 pixels of frame 0 of the image, but 64 × 64"),
    ],
)
def test_only_pixels_are_taken_as_pixels(opened: Callable[..., NimbusDataset], content: bytes, words: str) -> None:
    class Odd(Image):
        def region(self, query: dict[str, str]) -> bytes:
            return content

    dataset = opened(Odd({(0, 0, 0, 0): discs()}), [white_layer()])
    with pytest.raises(ServerError, match=words):
        dataset.frame(Location()).read()


def test_nothing_finite_is_black(opened: Callable[..., NimbusDataset]) -> None:
    plane = np.full((8, 8), np.nan, "float32")
    percent = {"mode": "percentile", "blackPoint": 0, "whitePoint": 100}
    dataset = opened(Image({(0, 0, 0, 0): plane}), [white_layer(contrast=percent)])
    assert not dataset.frame(Location()).read().any()
    assert replace(dataset.layers[0], channel=0) == dataset.layers[0]
