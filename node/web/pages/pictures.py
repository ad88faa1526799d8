# SPDX-License-Identifier: Apache-2.0
"""What kind of file somebody gave us, by its first bytes; and pictures without what a camera writes beside them.

A telephone writes the place into every photograph. A picture of a room in a shelter must not say where the shelter is:
everything but the picture, its colours and which side is up is left out before it is sealed.
"""

from __future__ import annotations

from typing import Final

from protocol.errors import LocalError

_PNG: Final = b"\x89PNG\r\n\x1a\n"
#: Ending → (how such a file begins, the type it is called). An office document is a zip archive.
_KINDS: Final = {
    "pdf": (b"%PDF-", "application/pdf"),
    "jpg": (b"\xff\xd8\xff", "image/jpeg"),
    "jpeg": (b"\xff\xd8\xff", "image/jpeg"),
    "png": (_PNG, "image/png"),
    "docx": (b"PK\x03\x04", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    "xlsx": (b"PK\x03\x04", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    "odt": (b"PK\x03\x04", "application/vnd.oasis.opendocument.text"),
    "ods": (b"PK\x03\x04", "application/vnd.oasis.opendocument.spreadsheet"),
    "txt": (b"", "text/plain"),
}
ENDINGS: Final = tuple(_KINDS)
PICTURES: Final = frozenset({"image/jpeg", "image/png"})
#: JPEG segments that are kept: JFIF, the colour profile, Adobe's colour transform, and the picture itself.
_KEPT_APPS: Final = frozenset({0xE0, 0xE2, 0xEE})
_COMMENT: Final = 0xFE
_SCAN, _END = 0xDA, 0xD9
_NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD8)})
#: PNG chunks that are kept; what is left out are texts, times, Exif, and what nobody knows.
_KEPT_CHUNKS: Final = frozenset(
    {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"sBIT", b"bKGD", b"pHYs"}
)


def kind_of(name: str, head: bytes) -> str:
    """The type of a file by its ending and its first bytes. Raises LocalError `file-type` for any other kind."""
    begins, kind = _KINDS.get(name.rpartition(".")[2].lower(), (b"", ""))
    is_text = kind != "text/plain" or b"\0" not in head
    if not kind or not head.startswith(begins) or not is_text:
        raise LocalError(
            "file-type",
            "This kind of file cannot be sent. Choose a PDF, a JPEG or PNG picture, a text, or an office document.",
        )
    return kind


def without_metadata(kind: str, data: bytes) -> bytes:
    """The same picture without place, time, camera and hidden pictures. Raises LocalError `file-damaged`."""
    try:
        return _jpeg(data) if kind == "image/jpeg" else _png(data)
    except (IndexError, ValueError):
        raise LocalError(
            "file-damaged", "This picture is damaged. Open it on your device, save it anew, and try again."
        ) from None


def _jpeg(data: bytes) -> bytes:
    if data[:2] != b"\xff\xd8":
        raise ValueError
    kept, at = [b"\xff\xd8"], 2
    while True:
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if data[at] != 0xFF:
            raise ValueError
        marker = data[at + 1]
        if marker == _END:
            # What stands behind the end is no part of the picture: some telephones put a film there.
            return b"".join((*kept, b"\xff\xd9"))
        end = at + 2 if marker in _NO_LENGTH else at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if end > len(data):
            raise ValueError
        segment = data[at:end]
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            kept.append(_orientation(segment[10:]))
        elif not (0xE0 <= marker <= 0xEF or marker == _COMMENT) or marker in _KEPT_APPS:
            kept.append(segment)
        at = end
        if marker == _SCAN:
            begin = at
            # In the picture's data 0xFF is followed by 0 or a restart marker; anything else ends it.
            while not (data[at] == 0xFF and data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7):
                found = data.find(b"\xff", at + 1)
                if found < 0:
                    raise ValueError
                at = found
            kept.append(data[begin:at])


def _orientation(tiff: bytes) -> bytes:
    """An Exif segment that says which side is up and nothing else; empty if the picture said nothing of it."""
    if tiff[:2] not in (b"II", b"MM"):
        return b""
    is_little = tiff[:2] == b"II"

    def read(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "little" if is_little else "big")

    first = read(4, 4)
    for entry in range(min(read(first, 2), 64)):
        at = first + 2 + 12 * entry
        if read(at, 2) == 0x0112 and 1 <= read(at + 8, 2) <= 8:
            side = read(at + 8, 2)
            ifd = (
                b"MM\0\x2a\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01" + side.to_bytes(2) + b"\0\0" + bytes(4)
            )
            body = b"Exif\0\0" + ifd
            return b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body
    return b""


def _png(data: bytes) -> bytes:
    kept, at = [_PNG], len(_PNG)
    while True:
        length = int.from_bytes(data[at : at + 4])
        name, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            raise ValueError
        if name in _KEPT_CHUNKS:
            kept.append(data[at:end])
        if name == b"IEND":
            return b"".join(kept)
        at = end
