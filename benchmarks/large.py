"""Large images: memory and time by area, and whether a cut of one gives the same objects alone.

    python benchmarks/large.py --data DIR [--megapixels 1 4 16 64] [--enlarge 1] [--max-memory GB] [--out FILE]

`DIR` holds real images in folders, each with a label image ``NAME_labels.png`` beside it, such as the dsb2018 frames.
They are laid side by side, turned at random, to an RGB picture of any size, which is written as OME-Zarr and as
pyramidal TIFF and searched by ``sam2-fewshot segment`` in a process of its own with the embedded checkpoint. Objects
that are cut at the seams of the mosaic are part of it. Enlarged twice, the nuclei of the dsb2018 frames are 40 px wide,
as on a slide scanned at 40×.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import tifffile
from PIL import Image

from sam2_fewshot.geometry.outlines import crop_to_object, mask_to_polygon
from sam2_fewshot.geometry.overlap import mask_iou

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

TILE = 256
CUT = 2048
EXAMPLES = 10


def tiles(folder: Path, enlarge: int = 1) -> list[tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]]:
    """Return RGB tiles of 256 × 256 px with their labels, at most eight, each pixel of them enlarged."""
    found = []
    for path in sorted(folder.rglob("*_labels.png")):
        image = Image.open(path.with_name(path.name.replace("_labels", "")))
        if image.size == (TILE, TILE):
            size = (enlarge * TILE, enlarge * TILE)
            rgb = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
            found.append((np.asarray(rgb), np.asarray(Image.open(path).resize(size, Image.Resampling.NEAREST))))
    return found[:8]


class Mosaic:
    """A picture of tiles turned at random; the part at the top left is the same in every size."""

    def __init__(self, parts: list[tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]], side: int) -> None:
        self.parts, self.side = parts, side
        self.size = len(parts[0][0])

    def tile(self, row: int, column: int) -> NDArray[np.uint8]:
        """Return one tile."""
        chance = np.random.default_rng([row, column])
        number = 0 if row == column == 0 else int(chance.integers(len(self.parts)))
        turns = 0 if row == column == 0 else int(chance.integers(4))
        return np.rot90(self.parts[number][0], turns)

    def rows(self) -> Iterator[NDArray[np.uint8]]:
        """Yield strips (256, side, 3), the last one cut."""
        count = -(-self.side // self.size)
        for row in range(count):
            strip = np.concatenate([self.tile(row, column) for column in range(count)], axis=1)
            yield strip[: min(self.size, self.side - row * self.size), : self.side]

    def write_zarr(self, path: Path) -> None:
        """Write an OME-Zarr 0.5 with three levels."""
        import zarr

        group = zarr.open_group(path, mode="w", zarr_format=3)
        levels = [
            group.create_array(str(n), shape=(3, *([-(-self.side // 4**n)] * 2)), chunks=(3, 512, 512), dtype="u1")
            for n in range(3)
        ]
        for number, strip in enumerate(self.rows()):
            top = number * self.size
            for n, level in enumerate(levels):
                level[:, top // 4**n : top // 4**n + len(strip[:: 4**n])] = np.moveaxis(strip[:: 4**n, :: 4**n], -1, 0)
        axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space"} for axis in "yx")]
        named = zip(("red", "green", "blue"), ("FF0000", "00FF00", "0000FF"), strict=True)
        channels = [{"label": name, "color": color} for name, color in named]
        datasets = [
            {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [1, 4**n, 4**n]}]}
            for n in range(3)
        ]
        group.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [{"name": "mosaic", "axes": axes, "datasets": datasets}],
            "omero": {"channels": channels},
        }

    def write_tiff(self, path: Path) -> None:
        """Write a pyramidal TIFF of JPEG-free tiles with one smaller level."""
        count = -(-self.side // self.size)

        def parts(step: int) -> Iterator[NDArray[np.uint8]]:
            height = step * TILE
            for y in range(0, self.side, height):
                rows = range(y // self.size, min(-(-(y + height) // self.size), count))
                band = np.concatenate([np.concatenate([self.tile(a, b) for b in range(count)], 1) for a in rows])
                band = band[y - rows[0] * self.size :][:height]
                for x in range(0, self.side, height):
                    block = np.zeros((height, height, 3), np.uint8)
                    piece = band[:, x : x + height]
                    block[: len(piece), : piece.shape[1]] = piece
                    yield np.ascontiguousarray(block[::step, ::step])

        options: dict[str, Any] = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "zlib", "dtype": np.uint8}
        with tifffile.TiffWriter(path, bigtiff=True) as tif:
            tif.write(parts(1), shape=(self.side, self.side, 3), subifds=1, **options)
            small = -(-self.side // 4)
            tif.write(parts(4), shape=(small, small, 3), subfiletype=1, **options)

    def write_examples(self, path: Path) -> None:
        """Outline objects of the first tile as QuPath does."""
        labels = self.parts[0][1]
        numbers = [n for n in np.unique(labels) if n]
        masks = [crop_to_object(labels == n) for n in numbers]
        inside = [m for m in masks if min(m.box[:2]) > 0 and max(m.box[2:]) < self.size]
        features = [
            {"type": "Feature", "geometry": shapely.geometry.mapping(mask_to_polygon(mask)), "properties": {}}
            for mask in inside[:EXAMPLES]
        ]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def searched(image: Path, examples: Path, out: Path, max_memory: float) -> dict[str, Any]:
    """Run the program in a process of its own; return its seconds, peak memory and counts."""
    command = [sys.executable, "-m", "sam2_fewshot", "segment", str(image), "--examples", str(examples), "-o", str(out)]
    command += ["--model", "sam2.1_hiera_micro.pt", "--device", "cpu", "--cache-size", "0"]
    if max_memory:
        command += ["--max-memory", str(max_memory)]
    began = time.perf_counter()

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")

    facts = json.loads((out / "run.json").read_text())
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_mb": usage.ru_maxrss / 1024,
        "objects": facts["objects"],
        "stages": facts["seconds"],
        "load_and_learn": facts["seconds"].get("load model", 0) + facts["seconds"].get("learn examples", 0),
    }


def same_objects(alone: Path, within: Path) -> tuple[int, int, int]:
    """Count objects of a cut away from its border: all, those not in the whole, and those of it not in the cut."""
    found = []
    for out in (alone, within):
        with tifffile.TiffFile(next((out / "labels").glob("*.tif"))) as tif:
            labels = tif.asarray()[:CUT, :CUT]
        masks = []
        from scipy import ndimage

        for number, place in enumerate(ndimage.find_objects(labels.astype(np.int32)), 1):
            if place is not None:
                masks.append(crop_to_object(labels[place] == number, (CUT, CUT), place[1].start, place[0].start))
        found.append([m for m in masks if m.area and max(m.box[2:]) < CUT - 64])
    trees = [shapely.STRtree([shapely.box(*mask.box) for mask in masks]) for masks in found]

    def missing(a: int, b: int) -> int:
        return sum(
            all(mask_iou(mask, found[b][i]) < 0.8 for i in trees[b].query(shapely.box(*mask.box))) for mask in found[a]
        )

    return len(found[0]), missing(0, 1), missing(1, 0)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--enlarge", type=int, default=1)
    parser.add_argument("--max-memory", type=float, default=0)
    parser.add_argument("--formats", nargs="+", default=["zarr", "tiff"])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    parts = tiles(arguments.data, arguments.enlarge)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        results: dict[tuple[int, str], Path] = {}
        for megapixels in arguments.megapixels:
            side = round((megapixels * 1e6) ** 0.5)
            mosaic = Mosaic(parts, side)
            for form in arguments.formats:
                image = base / (f"m{side}.ome.zarr" if form == "zarr" else f"m{side}.tif")
                (mosaic.write_zarr if form == "zarr" else mosaic.write_tiff)(image)
                examples = base / f"m{side}.geojson"
                mosaic.write_examples(examples)
                out = results[side, form] = base / f"out_{side}_{form}"
                row = {"side": side, "megapixels": side**2 / 1e6, "format": form}
                row |= searched(image, examples, out, arguments.max_memory)
                row["seconds_per_megapixel"] = (row["seconds"] - row["load_and_learn"]) / row["megapixels"]
                rows.append(row)
                told = {name: value for name, value in row.items() if name != "stages"}
                print({name: round(v, 2) if isinstance(v, float) else v for name, v in told.items()}, flush=True)
                if arguments.out:
                    arguments.out.write_text(json.dumps(rows, indent=1))
        largest = max(side for side, _ in results)
        if largest > CUT:
            mosaic = Mosaic(parts, CUT)
            mosaic.write_tiff(base / "cut.tif")
            mosaic.write_examples(base / "cut.geojson")
            searched(base / "cut.tif", base / "cut.geojson", base / "out_cut", 0)
            form = arguments.formats[-1]
            total, lost, more = same_objects(base / "out_cut", results[largest, form])
            rows.append({"cut": CUT, "of": largest, "objects": total, "not_in_whole": lost, "only_in_whole": more})
            print(rows[-1])
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
