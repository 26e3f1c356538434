"""Small files as microscopes write them, made from arrays."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def write_czi(
    path: Path,
    array: np.ndarray,
    pixels: int = 1,
    tile: int = 16,
    pack: Callable[[np.ndarray], bytes] = lambda part: part.tobytes(),
    compression: int = 0,
    scenes: int = 1,
    pyramid: tuple[int, ...] = (),
    xml: str = "",
    smaller: int = 0,
    phases: int = 1,
) -> Path:
    """Write (T, Z, C, Y, X[, 3]) as a CZI of tiles, its axes counted from odd numbers; a pyramid by its reductions.

    Each scene is the array plus its number, and some rows smaller than the one before; each phase is ten more.
    """
    body = bytearray(struct.pack("<16sqq", b"ZISRAWFILE", 512, 512)).ljust(544, b"\0")
    entries = []

    def entry(place, starts, sizes, reduced=1):
        dims = b"".join(
            struct.pack("<4siifi", axis.encode(), starts[axis], n, 0, -(-n // reduced) if axis in "XY" else n)
            for axis, n in sizes.items()
        )
        kind = 2 if reduced > 1 else 0
        return struct.pack("<2siqiiB5xi", b"DV", pixels, place, 0, compression, kind, len(starts)) + dims

    def put(part, starts, sizes, reduced=1):
        place, data = len(body), pack(part)
        told = entry(place, starts, sizes, reduced)
        entries.append(told)
        inner = struct.pack("<iiq", 5, 0, len(data)) + told.ljust(240, b"\0") + b"<xml>" + data
        body.extend(struct.pack("<16sqq", b"ZISRAWSUBBLOCK", len(inner), len(inner)) + inner)

    height, width = array.shape[3:5]
    for scene, phase in np.ndindex(scenes, phases):
        rows = height - scene * smaller
        for t, z, c in np.ndindex(array.shape[:3]):
            for m, (y, x) in enumerate((y, x) for y in range(0, rows, tile) for x in range(0, width, tile)):
                part = array[t, z, c, y : min(y + tile, rows), x : x + tile] + array.dtype.type(scene + 10 * phase)
                starts = {"X": x - 7, "Y": y + 5, "C": c + 2, "Z": z + 1, "T": t, "S": scene, "M": m, "B": 0}
                if phases > 1:
                    starts["H"] = phase
                sizes = dict.fromkeys(starts, 1) | {"X": part.shape[1], "Y": part.shape[0]}
                put(np.ascontiguousarray(part), starts, sizes)
    for step in pyramid:
        for t, z, c in np.ndindex(array.shape[:3]):
            starts = {"X": -7, "Y": 5, "C": c + 2, "Z": z + 1, "T": t, "S": 0}
            sizes = dict.fromkeys(starts, 1) | {"X": width, "Y": height}
            put(np.ascontiguousarray(array[t, z, c, ::step, ::step]), starts, sizes, step)
    directory = len(body)
    inner = struct.pack("<i124x", len(entries)) + b"".join(entries)
    body += struct.pack("<16sqq", b"ZISRAWDIRECTORY", len(inner), len(inner)) + inner
    described = len(body)
    inner = struct.pack("<ii248x", len(xml.encode()), 0) + xml.encode()
    body += struct.pack("<16sqq", b"ZISRAWMETADATA", len(inner), len(inner)) + inner
    struct.pack_into("<ii8x16s16siqqiq", body, 32, 1, 0, b"", b"", 0, directory, described, 0, 0)
    path.write_bytes(body)
    return path


def write_lif(
    path: Path,
    array: np.ndarray,
    images: int = 1,
    luts=("Green", "Gray"),
    rgb: str = "",
    mosaic: int = 1,
    padding: int = 0,
    further_axes=(),
) -> Path:
    """Write (T, Z, C, Y, X), or photos (1, 1, 1, Y, X, 3), as a LIF; further images are the same plus 1.

    `rgb` is the order of a photo's samples, such as "RGB"; its rows may end in some pixels of padding. Further
    axes are (number of the axis, steps, bytes of a step, length).
    """
    item = array.itemsize
    t, z, c, height, width = array.shape[:5]
    samples = 3 if rgb else 1
    row = (width + padding) * item * samples
    plane = row * height
    axes = [
        (1, width, item * samples, (width - 1) * 5e-7),
        (2, height, row, (height - 1) * 2.5e-7),
        (3, z, plane * c, (z - 1) * 2e-6),
        (4, t, plane * c * z, t - 1.0),
        *([(10, mosaic, plane * c * z * t, 0)] if mosaic > 1 else []),
        *further_axes,
    ]
    if padding:
        array = np.pad(array, [(0, 0)] * 4 + [(0, padding)] + [(0, 0)] * (array.ndim - 5))
    array = np.stack([array + array.dtype.type(n) for n in range(mosaic)])
    dims = "".join(
        f'<DimensionDescription DimID="{key}" NumberOfElements="{n}" Origin="0" Length="{length}" Unit="m" BitInc="0" '
        f'BytesInc="{step}"/>'
        for key, n, step, length in axes
    )
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="{1 + "RGB".index(lut) if rgb else 0}" Resolution="{8 * item}" '
        f'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="{lut}" IsLUTInverted="0" '
        f'BytesInc="{n * (item if rgb else plane)}" BitInc="0"/>'
        for n, lut in enumerate(rgb or luts[:c])
    )
    elements = "".join(
        f'<Element Name="Series{n}" UniqueID="u{n}"><Data><Image><ImageDescription><Channels>{channels}</Channels>'
        f"<Dimensions>{dims}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{array.nbytes}" MemoryBlockID="MemBlock_{n}"/></Element>'
        for n in range(images)
    )
    xml = (
        f'<LMSDataContainerHeader Version="2"><Element Name="a"><Children>{elements}</Children></Element>'
        "</LMSDataContainerHeader>"
    )
    data = struct.pack("<IIBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml)) + xml.encode("utf-16-le")
    for n in range(images):
        name = f"MemBlock_{n}"
        data += struct.pack("<IIBQBI", 0x70, 0, 0x2A, array.nbytes, 0x2A, len(name)) + name.encode("utf-16-le")
        data += (array + array.dtype.type(n)).tobytes()
    path.write_bytes(data)
    return path


def write_lif_images(path: Path, images: dict[str, tuple[str, np.ndarray]]) -> Path:
    """Write images of their own axes, the slowest first (``"TCZX"``), as a LIF; wavelengths are λ and Λ."""
    numbers = {"X": 1, "Y": 2, "Z": 3, "T": 4, "λ": 5, "Λ": 9, "M": 10}
    elements, blocks = "", b""
    for n, (name, (axes, given)) in enumerate(images.items()):
        array = np.ascontiguousarray(given)
        steps = dict(zip(axes, array.strides, strict=True))
        sizes = dict(zip(axes, array.shape, strict=True))
        dims = "".join(
            f'<DimensionDescription DimID="{numbers[axis]}" NumberOfElements="{sizes[axis]}" '
            f'Origin="{5e-7 if axis in "λΛ" else 0}" Length="{(sizes[axis] - 1) * 1e-8}" Unit="m" BitInc="0" '
            f'BytesInc="{steps[axis]}"/>'
            for axis in reversed(axes)
            if axis != "C"
        )
        channels = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * array.itemsize}" '
            f'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="{lut}" IsLUTInverted="0" '
            f'BytesInc="{c * steps.get("C", 0)}" BitInc="0"/>'
            for c, lut in enumerate(("Green", "Red")[: sizes.get("C", 1)])
        )
        elements += (
            f'<Element Name="{name}" UniqueID="u{n}"><Data><Image><ImageDescription><Channels>{channels}</Channels>'
            f"<Dimensions>{dims}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{array.nbytes}" MemoryBlockID="MemBlock_{n}"/></Element>'
        )
        block = f"MemBlock_{n}"
        blocks += struct.pack("<IIBQBI", 0x70, 0, 0x2A, array.nbytes, 0x2A, len(block)) + block.encode("utf-16-le")
        blocks += array.tobytes()
    xml = (
        f'<LMSDataContainerHeader Version="2"><Element Name="a"><Children>{elements}</Children></Element>'
        "</LMSDataContainerHeader>"
    )
    path.write_bytes(struct.pack("<IIBI", 0x70, 2 * len(xml) + 5, 0x2A, len(xml)) + xml.encode("utf-16-le") + blocks)
    return path


def write_nd2(
    path: Path,
    array: np.ndarray,
    calibrated: bool = True,
    positions: int = 1,
    probes: bool = True,
    packed: bool = False,
    padding: int = 0,
    claim: int | None = None,
    names: tuple[str, ...] = (),
) -> Path:
    """Write (T, Z, C, Y, X[, 3]) as an ND2 of version 2, its rows with some bytes of padding; `packed` by zlib.

    It can claim to be of more pixels each way than it is. Each position is the array plus its number.
    """
    t, z, c, height, width = array.shape[:5]
    samples, bits = (array.shape[5] if array.ndim > 5 else 1), 8 * array.itemsize
    row = width * c * samples * array.itemsize + padding

    def variant(content: dict) -> bytes:
        return (
            f'<variant version="1.0"><no_name runtype="CLxListVariant">{fields(content)}</no_name></variant>'.encode()
        )

    def fields(content: dict) -> str:
        parts = []
        for name, value in content.items():
            if isinstance(value, dict):
                parts.append(f'<{name} runtype="CLxListVariant">{fields(value)}</{name}>')
                continue
            kind = {bool: "bool", int: "lx_uint32", float: "double", str: "CLxStringW"}[type(value)]
            parts.append(f'<{name} runtype="{kind}" value="{str(value).lower() if kind == "bool" else value}"/>')
        return "".join(parts)

    def loop(kind: int, count: int, inner: dict, **more: object) -> dict:
        if count == 1:
            return inner
        below = {"ppNextLevelEx": {"i0000000000": inner}} if inner else {}
        return {"eType": kind, "uLoopPars": {"uiCount": count, **more}, **below}

    # nd2 0.12 does not read metadata without
    probe = {"pFluorescentProbe": {"m_ExcitationSpectrum": {"uiCount": 0}}} if probes else {}
    planes = {
        f"a{n}": {"sDescription": ["DAPI", "GFP"][n], "uiColor": [0xFF0000, 0x00FF00][n], "uiCompCount": samples}
        | probe
        for n in range(c)
    }
    experiment = loop(4, z, {}, dZStep=2.0, bAbsolute=False, dZHome=0.0, dZLow=0.0, dZHigh=1.0, iType=0)
    places = {f"i{n:010}": {"dPosX": 0.0, "dPosY": 0.0, "dPosZ": 0.0} for n in range(positions)}
    for place, name in zip(places.values(), names, strict=False):
        place["dPosName"] = name
    experiment = loop(2, positions, experiment, Points=places)
    experiment = loop(1, t, experiment, dStart=0.0, dPeriod=1.0, dDuration=1.0)
    chunks: dict[bytes, bytes] = {
        b"ImageAttributes!": variant(
            {
                "uiWidth": claim or width,
                "uiWidthBytes": row // width * claim if claim else row,
                "uiHeight": claim or height,
                "uiComp": c * samples,
                "uiBpcInMemory": bits,
                "uiBpcSignificant": bits,
                "uiSequenceCount": t * z * positions,
                "eCompression": 0 if packed else 2,
                "dCompressionParam": 0.0,
                "uiTileWidth": width,
                "uiTileHeight": height,
            }
        ),
        b"ImageMetadataSeq|0!": variant(
            {"bCalibrated": calibrated, "dCalibration": 0.5, "sPicturePlanes": {"uiCount": c, "sPlaneNew": planes}}
        ),
    }
    if experiment:
        chunks[b"ImageMetadata!"] = variant(experiment)
    number = 0
    for time in range(t):
        for position in range(positions):
            for depth in range(z):
                pixels = np.moveaxis(array[time, depth], 0, 2) + array.dtype.type(position)
                lines = np.ascontiguousarray(pixels).reshape(height, -1).view(np.uint8)
                content = np.pad(lines, ((0, 0), (0, padding))).tobytes()
                chunks[b"ImageDataSeq|%d!" % number] = bytes(8) + (zlib.compress(content) if packed else content)
                number += 1
    data = struct.pack("<IIQ32s64s", 0x0ABECEDA, 32, 64, b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver2.1")
    table = b""
    for name, content in chunks.items():
        padded = name.ljust(4072 if b"DataSeq" in name else 32, b"\0")  # pixels begin 4096 bytes on
        table += name + struct.pack("<QQ", len(data), len(content))
        data += struct.pack("<IIQ", 0x0ABECEDA, len(padded), len(content)) + padded + content
    place = len(data)
    table += b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", place)
    name = b"ND2 FILEMAP SIGNATURE NAME 0001!"
    path.write_bytes(data + struct.pack("<IIQ", 0x0ABECEDA, len(name), len(table)) + name + table)
    return path
