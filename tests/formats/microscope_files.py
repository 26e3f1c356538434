"""Small files as microscopes write them, made from arrays."""

from __future__ import annotations

import struct
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
    pyramid: bool = False,
    xml: str = "",
) -> Path:
    """Write (T, Z, C, Y, X[, 3]) as a CZI of tiles, its axes counted from odd numbers."""
    body = bytearray(struct.pack("<16sqq", b"ZISRAWFILE", 512, 512)).ljust(544, b"\0")
    entries = []

    def entry(place, starts, sizes, reduced=0):
        dims = b"".join(
            struct.pack("<4siifi", axis.encode(), starts[axis], sizes[axis], 0, reduced or sizes[axis])
            for axis in starts
        )
        kind = 2 if reduced else 0
        return struct.pack("<2siqiiB5xi", b"DV", pixels, place, 0, compression, kind, len(starts)) + dims

    def put(part, starts, sizes, reduced=0):
        place, data = len(body), pack(part)
        told = entry(place, starts, sizes, reduced)
        entries.append(told)
        inner = struct.pack("<iiq", 5, 0, len(data)) + told.ljust(240, b"\0") + b"<xml>" + data
        body.extend(struct.pack("<16sqq", b"ZISRAWSUBBLOCK", len(inner), len(inner)) + inner)

    height, width = array.shape[3:5]
    for scene in range(scenes):
        for t, z, c in np.ndindex(array.shape[:3]):
            for m, (y, x) in enumerate((y, x) for y in range(0, height, tile) for x in range(0, width, tile)):
                part = array[t, z, c, y : y + tile, x : x + tile] + scene
                starts = {"X": x - 7, "Y": y + 5, "C": c + 2, "Z": z + 1, "T": t, "S": scene, "M": m, "B": 0}
                sizes = dict.fromkeys(starts, 1) | {"X": part.shape[1], "Y": part.shape[0]}
                put(np.ascontiguousarray(part), starts, sizes)
    if pyramid:
        starts = {"X": -7, "Y": 5, "C": 2, "Z": 1, "T": 0, "S": 0}
        put(
            np.ascontiguousarray(array[0, 0, 0, ::2, ::2]),
            starts,
            dict.fromkeys(starts, 1) | {"X": width, "Y": height},
            reduced=9,
        )
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
    path: Path, array: np.ndarray, images: int = 1, luts=("Green", "Gray"), rgb: bool = False, mosaic: int = 1
) -> Path:
    """Write uint16 (T, Z, C, Y, X), or uint8 (1, 1, 1, Y, X, 3), as a LIF; further images are the same plus 1."""
    item = array.itemsize
    t, z, c, height, width = array.shape[:5]
    samples = 3 if rgb else 1
    plane = width * height * item * samples
    axes = [
        (1, width, item * samples, (width - 1) * 5e-7),
        (2, height, width * item * samples, (height - 1) * 2.5e-7),
        (3, z, plane * c, (z - 1) * 2e-6),
        (4, t, plane * c * z, t - 1.0),
        *([(10, mosaic, array.nbytes, 0)] if mosaic > 1 else []),
    ]
    array = np.stack([array + array.dtype.type(n) for n in range(mosaic)])
    dims = "".join(
        f'<DimensionDescription DimID="{key}" NumberOfElements="{n}" Origin="0" Length="{length}" Unit="m" BitInc="0" '
        f'BytesInc="{step}"/>'
        for key, n, step, length in axes
    )
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="{n + 1 if rgb else 0}" Resolution="{8 * item}" '
        f'NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName="{lut}" IsLUTInverted="0" '
        f'BytesInc="{n * (item if rgb else plane)}" BitInc="0"/>'
        for n, lut in enumerate(["Red", "Green", "Blue"] if rgb else luts[:c])
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


def write_nd2(path: Path, array: np.ndarray, calibrated: bool = True, positions: int = 1, probes: bool = True) -> Path:
    """Write uint16 (T, Z, C, Y, X) as an ND2 of version 2."""
    t, z, c, height, width = array.shape

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
        f"a{n}": {"sDescription": ["DAPI", "GFP"][n], "uiColor": [0xFF0000, 0x00FF00][n], "uiCompCount": 1} | probe
        for n in range(c)
    }
    experiment = loop(4, z, {}, dZStep=2.0, bAbsolute=False, dZHome=0.0, dZLow=0.0, dZHigh=1.0, iType=0)
    places = {f"i{n:010}": {"dPosX": 0.0, "dPosY": 0.0, "dPosZ": 0.0} for n in range(positions)}
    experiment = loop(2, positions, experiment, Points=places)
    experiment = loop(1, t, experiment, dStart=0.0, dPeriod=1.0, dDuration=1.0)
    chunks: dict[bytes, bytes] = {
        b"ImageAttributes!": variant(
            {
                "uiWidth": width,
                "uiWidthBytes": width * c * 2,
                "uiHeight": height,
                "uiComp": c,
                "uiBpcInMemory": 16,
                "uiBpcSignificant": 16,
                "uiSequenceCount": t * z * positions,
                "eCompression": 2,
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
                pixels = np.moveaxis(array[time, depth], 0, -1) + np.uint16(position)
                chunks[b"ImageDataSeq|%d!" % number] = bytes(8) + np.ascontiguousarray(pixels).tobytes()
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
