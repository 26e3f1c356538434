"""Give a reader of images a thousand damaged files, and see that it reads them or says in a sentence why not.

    python tests/formats/fuzzing.py READER [--count 1000] [--first 0] [--folder DIR]

Every reader has seeds, which are written by the libraries of their formats where there is one that writes, else by this
suite's own writers. A mutation is made from its number alone, so ``--first N --count 1 --folder DIR`` makes number N
again and leaves its file in DIR. A mutation may take a minute of the processor and 4 GB of memory; one that takes more
ends this program with its number as the last line.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import resource
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import tifffile
import zarr
from microscope_files import write_czi, write_lif, write_lif_images, write_nd2
from PIL import Image
from zarr_files import write_zarr_image, write_zarr_plate, write_zarr_series

from sam2_fewshot.errors import FewShotError
from sam2_fewshot.images.registry import open_positions
from sam2_fewshot.images.source import RegionSource

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = 4_000_000_000
"""Bytes that may be taken beyond what the libraries take."""
SECONDS = 60
"""Of processor time for a mutation."""
RANDOM = np.random.default_rng(1)
STACK = RANDOM.integers(0, 60_000, (2, 3, 2, 40, 50)).astype(np.uint16)
PLANE = STACK[0, 0, 0]
PHOTO = RANDOM.integers(0, 255, (40, 50, 3)).astype(np.uint8)
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
_NUMBERS = ("0", "-1", "1e999", "99999999999999999999", "2147483648", "null", '"x"', "[]", "{}", "1.5")


def _ome_tiff(path: Path) -> Path:
    with tifffile.TiffWriter(path, ome=True) as tif:
        for name, pixels in (("a", STACK), ("b", STACK[:1, :1, :, :20])):
            metadata = {"axes": "TZCYX", "Name": name, "Channel": {"Name": ["DAPI", "GFP"]}, "PhysicalSizeX": 0.5}
            tif.write(pixels, photometric="minisblack", metadata=metadata)
    return path


def _pyramid(path: Path) -> Path:
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(PHOTO, subifds=1, tile=(16, 16), compression="zlib", photometric="rgb")
        tif.write(PHOTO[::2, ::2], subfiletype=1, tile=(16, 16), compression="zlib", photometric="rgb")
    return path


def _tiff(path: Path, **more: object) -> Path:
    tifffile.imwrite(path, **more)
    return path


def _companion(folder: Path) -> Path:
    folder.mkdir()
    images = ""
    for n in range(2):
        xml = '<OME UUID="urn:uuid:f{0}"><BinaryOnly MetadataFile="a.companion.ome" UUID="urn:uuid:r"/></OME>'
        tifffile.imwrite(folder / f"f{n}.ome.tif", PLANE, description=xml.format(n), metadata=None)
        images += (
            f'<Image ID="Image:{n}" Name="n{n}"><Pixels DimensionOrder="XYCZT" Type="uint16" SizeX="50" SizeY="40" '
            f'SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="0.5"><Channel Name="c"/><TiffData IFD="0" PlaneCount="1">'
            f'<UUID FileName="f{n}.ome.tif">urn:uuid:f{n}</UUID></TiffData></Pixels></Image>'
        )
    path = folder / "a.companion.ome"
    path.write_text(f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:r">{images}</OME>')
    return path


def _picture(path: Path, pixels: np.ndarray, mode: str | None = None, **more: object) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **more)
    return path


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _scaled(path: Path) -> Path:
    write_zarr_image(path, STACK, "tzcyx", form=2)
    group = zarr.open_group(path, mode="a")
    group.attrs["omero"] = {"channels": [{"label": "DAPI", "color": "0000FF"}, {"label": "GFP", "color": "00FF00"}]}
    return path


CZI_XML = """<ImageDocument><Metadata><Scaling><Items><Distance Id="X"><Value>5e-07</Value></Distance></Items></Scaling>
<Information><Image><Dimensions><Channels><Channel Name="DAPI"/><Channel Name="GFP"/></Channels><S><Scenes>
<Scene Index="0" Name="P1"><Shape Name="B3"/></Scene></Scenes></S></Dimensions></Image></Information></Metadata>
</ImageDocument>"""

SEEDS: dict[str, list[Callable[[Path], Path]]] = {
    "tiff": [
        lambda f: _tiff(f / "a.tif", data=STACK[:, :, 0]),
        lambda f: _tiff(f / "a.tif", data=PLANE, tile=(16, 16), compression="zlib", predictor=True),
        lambda f: _tiff(f / "a.tif", data=PHOTO, compression="lzw", rowsperstrip=7, photometric="rgb"),
        lambda f: _tiff(f / "a.tif", data=STACK, imagej=True, resolution=(4, 4), metadata={"unit": "um"}),
        lambda f: _ome_tiff(f / "a.ome.tif"),
        lambda f: _pyramid(f / "a.tif"),
    ],
    "companion": [lambda f: _companion(f / "set")],
    "picture": [
        lambda f: _picture(f / "a.png", PHOTO),
        lambda f: _picture(f / "a.png", PLANE),
        lambda f: _bytes(f / "a.png", imagecodecs.png_encode(np.stack([PLANE] * 3, -1))),
        lambda f: _picture(f / "a.jpg", PHOTO),
        lambda f: _picture(f / "a.bmp", PHOTO),
        lambda f: _picture(f / "a.gif", PHOTO, "P", save_all=True, append_images=[Image.fromarray(PHOTO)]),
        lambda f: _picture(f / "a.webp", PHOTO, lossless=True),
        lambda f: _picture(f / "a.ppm", PHOTO),
    ],
    "jpeg2000": [
        lambda f: _bytes(f / "a.jp2", imagecodecs.jpeg2k_encode(PHOTO, codecformat="jp2")),
        lambda f: _bytes(f / "a.j2k", imagecodecs.jpeg2k_encode(PLANE, codecformat="j2k", reversible=True)),
    ],
    "nd2": [
        lambda f: write_nd2(f / "a.nd2", STACK, positions=2, names=("A1", "A2")),
        lambda f: write_nd2(f / "a.nd2", STACK[:1], packed=True),
        lambda f: write_nd2(f / "a.nd2", PHOTO[None, None, None]),
    ],
    "lif": [
        lambda f: write_lif(f / "a.lif", STACK, images=2, mosaic=2),
        lambda f: write_lif(f / "a.lif", PHOTO[None, None, None], rgb="BGR"),
        lambda f: write_lif_images(f / "a.lif", {"xz": ("TCZX", STACK[:, 0]), "λ": ("TλYX", STACK[:, 0])}),
    ],
    "czi": [
        lambda f: write_czi(f / "a.czi", STACK, scenes=2, smaller=5, xml=CZI_XML, pyramid=(2,)),
        lambda f: write_czi(f / "a.czi", STACK[:1, :1], compression=5, pack=imagecodecs.zstd_encode, phases=2),
        lambda f: write_czi(f / "a.czi", STACK[:1, :1, :1], compression=4, pack=imagecodecs.jpegxr_encode),
    ],
    "ome_zarr": [
        lambda f: write_zarr_plate(f / "p.zarr", {"A/1": [PLANE, PLANE], "B/2": [PLANE]}),
        lambda f: write_zarr_series(f / "s.zarr", {"one": PLANE, "two": PLANE}),
        lambda f: _scaled(f / "a.zarr"),
    ],
}
"""Writers of seeds by reader: each writes one into a folder and returns its path."""


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Return a file's content with a few things wrong."""
    if not data:
        return b"\0"
    if data[:1] in b"<{" and random.random() < 0.7:
        return _mutated_text(data, random)
    out = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        place = int(random.integers(0, max(1, len(out)))) if random.random() < 0.6 else int(random.integers(0, 600))
        place = min(place, max(0, len(out) - 1))
        kind = random.integers(0, 7)
        if kind <= 1 and out:
            out[place] = int(random.integers(0, 256))
        elif kind <= 3:
            size = int(random.choice([2, 4, 8]))
            value = int(random.choice(_EXTREMES)) % 256**size
            out[place : place + size] = value.to_bytes(size, str(random.choice(["little", "big"])))  # type: ignore[arg-type]
        elif kind == 4:
            del out[place : place + int(random.integers(1, 50))]
        elif kind == 5:
            other = int(random.integers(0, max(1, len(out))))
            out[place:place] = out[other : other + int(random.integers(1, 200))]
        elif random.random() < 0.5:
            del out[place:]
    return bytes(out)


def _mutated_text(data: bytes, random: np.random.Generator) -> bytes:
    text = data.decode("utf-8", "replace")
    numbers = list(re.finditer(r"-?[0-9]+(\.[0-9]+)?", text))
    words = list(re.finditer(r'"[^"]*"', text))
    for _ in range(int(random.integers(1, 3))):
        found = numbers if numbers and random.random() < 0.6 else words
        if not found:
            break
        at = found[int(random.integers(0, len(found)))]
        new = (
            str(random.choice(_NUMBERS))
            if found is numbers or random.random() < 0.5
            else at[0][: len(at[0]) // 2] + '"'
        )
        text = text[: at.start()] + new + text[at.end() :]
    return text.encode()


def make(reader: str, number: int, folder: Path) -> Path:
    """Write the mutation of a number into an empty folder, and return its path."""
    random = np.random.default_rng([number, *reader.encode()])
    seeds = SEEDS[reader]
    path = seeds[number % len(seeds)](folder)
    if path.is_dir() or reader == "companion":
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        described = [file for file in files if file.name.startswith(".z") or file.suffix in (".json", ".ome")]
        files = described if random.random() < 0.8 else files
        victim = files[int(random.integers(0, len(files)))]
    else:
        victim = path
    victim.write_bytes(mutated(victim.read_bytes(), random))
    return path


def read(path: Path) -> bool:
    """Read what there is to read in a file; return False where it is refused.

    Raises
    ------
    AssertionError
        If planes are not what the header says, or the refusal is not one sentence.
    """
    try:
        sources = open_positions(path)
        for source in sources[:3]:
            header = source.header
            z, t = header.size_z - 1, header.size_t - 1
            box = (0, 0, min(9, header.width), min(7, header.height))
            shape = (header.height, header.width)
            planes = list(source.planes(z, t))
            assert len(planes) == (1 if header.is_photo else header.size_c), "another number of planes"
            assert all(plane.shape[:2] == shape for plane in planes), "planes of another size"
            if isinstance(source, RegionSource):
                regions = list(source.region(z, t, box))
                assert all(part.shape[:2] == (box[3], box[2]) for part in regions), "regions of another size"
                list(source.reduced(z, t, 200) or ())
    except FewShotError as error:
        said = str(error)
    else:
        return True
    assert said, "no sentence"
    assert "\n" not in said, "more than a sentence"
    assert len(said) < 1000, "more than a sentence"
    return False


def main() -> None:
    """Run some mutations, and print how many were read and refused as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=sorted(SEEDS))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as own:  # what is imported later counts as memory of the libraries
        for number in range(len(SEEDS[arguments.reader])):
            place = Path(own) / str(number)
            place.mkdir()
            assert read(SEEDS[arguments.reader][number](place)), "a seed is refused"
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if Path("/proc").exists() else 0
    )
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    found = {"read": 0, "refused": 0}
    for number in range(arguments.first, arguments.first + arguments.count):
        sys.stderr.write(f"{arguments.reader} {number}\n")
        sys.stderr.flush()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        place = arguments.folder or Path(tempfile.mkdtemp())
        place.mkdir(parents=True, exist_ok=True)
        try:
            path = make(arguments.reader, number, place)
            kept = io.StringIO()
            out, sys.stdout = sys.stdout, kept  # nothing may be printed either
            try:
                found["read" if read(path) else "refused"] += 1
            finally:
                sys.stdout = out
            assert not kept.getvalue(), "something is printed"
        finally:
            if not arguments.folder:
                shutil.rmtree(place)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
