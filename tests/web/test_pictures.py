# SPDX-License-Identifier: Apache-2.0
"""A photograph must not say where it was taken; what is not a picture of a known kind is not taken for one."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.web.pages.pictures import kind_of, without_metadata
from protocol.errors import LocalError

PLACE = b"GPS 43.77 N 11.25 E, Invented Street"


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body


def exif(side: int, order: bytes = b"II") -> bytes:
    """An Exif segment with a place and, first, which side is up."""
    end = "little" if order == b"II" else "big"

    def n(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little" if end == "little" else "big")

    entry = n(0x0112, 2) + n(3, 2) + n(1, 4) + n(side, 2) + bytes(2)
    return segment(0xE1, b"Exif\0\0" + order + n(42, 2) + n(8, 4) + n(1, 2) + entry + bytes(4) + PLACE)


PIXELS = b"\x12\xff\x00\x34\xff\xd0\x56\xff\x00\x78"
TABLES = segment(0xDB, bytes(65)) + segment(0xC0, bytes(15)) + segment(0xC4, b"\xff\xd9" + bytes(18))
JPEG = (
    b"\xff\xd8"
    + segment(0xE0, b"JFIF\0\1\1" + bytes(7))
    + exif(6)
    + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + PLACE)
    + segment(0xED, PLACE)
    + segment(0xE2, b"ICC_PROFILE\0")
    + segment(0xFE, PLACE)
    + TABLES
    + segment(0xDA, bytes(10))
    + PIXELS
    + segment(0xC4, bytes(18))
    + segment(0xDA, bytes(10))
    + PIXELS
    + b"\xff\xd9"
    + PLACE
)


def chunk(name: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)


HEAD, DATA, END = chunk(b"IHDR", bytes(13)), chunk(b"IDAT", b"pixels"), chunk(b"IEND", b"")
PNG = b"\x89PNG\r\n\x1a\n" + HEAD + chunk(b"eXIf", PLACE) + chunk(b"tEXt", PLACE) + DATA + END + PLACE


def test_a_photograph_loses_its_place_and_keeps_its_picture() -> None:
    made = without_metadata("image/jpeg", JPEG)
    assert PLACE not in made and made.count(PIXELS) == 2 and TABLES in made and b"ICC_PROFILE" in made
    assert made.startswith(b"\xff\xd8\xff") and made.endswith(b"\xff\xd9")
    assert without_metadata("image/jpeg", made) == made, "there is nothing left to take out"


@pytest.mark.parametrize("order", [b"II", b"MM"])
def test_which_side_is_up_is_kept(order: bytes) -> None:
    made = without_metadata("image/jpeg", b"\xff\xd8" + exif(6, order) + TABLES + segment(0xDA, b"") + b"\xff\xd9")
    assert b"Exif\0\0MM\0\x2a" in made and b"\x01\x12\0\x03\0\0\0\x01\0\x06" in made and PLACE not in made


def test_a_png_loses_its_texts_and_keeps_its_picture() -> None:
    assert without_metadata("image/png", PNG) == b"\x89PNG\r\n\x1a\n" + HEAD + DATA + END


@given(st.integers(0, len(JPEG) - len(PLACE) - 1), st.sampled_from(["image/jpeg", "image/png"]))
def test_a_picture_that_was_cut_is_refused(at: int, kind: str) -> None:
    whole = JPEG if kind == "image/jpeg" else PNG
    with pytest.raises(LocalError) as refused:
        without_metadata(kind, whole[: min(at, len(whole) - len(PLACE) - 1)])
    assert refused.value.code == "file-damaged"


@given(st.binary(max_size=200))
def test_noise_is_refused_or_made_a_picture_but_never_a_fault(noise: bytes) -> None:
    for begin, kind in ((b"\xff\xd8", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png")):
        try:
            without_metadata(kind, begin + noise)
        except LocalError as refused:
            assert refused.code == "file-damaged"


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("permit.exe", b"MZ"),
        ("permit", b"%PDF-1.7"),
        ("page.html", b"<html>"),
        ("drawing.svg", b"<svg>"),
        ("permit.pdf", b"MZ\x90"),
        ("photo.jpg", b"\x89PNG\r\n\x1a\n"),
        ("photo.png", b"\xff\xd8\xff"),
        ("notes.txt", b"a\0b"),
        ("letter.docx", b"\xd0\xcf\x11\xe0"),
        ("permit.pdf.exe", b"%PDF-1.7"),
    ],
)
def test_what_is_not_what_its_name_says_is_refused(name: str, head: bytes) -> None:
    with pytest.raises(LocalError) as refused:
        kind_of(name, head)
    assert refused.value.code == "file-type"


def test_what_people_send_is_taken() -> None:
    assert kind_of("Permit.PDF", b"%PDF-1.4") == "application/pdf"
    assert kind_of("IMG_0001.JPEG", b"\xff\xd8\xff\xe1") == "image/jpeg"
    assert kind_of("ملاحظات.txt", "كلمات مخترعة".encode()) == "text/plain"
