# SPDX-License-Identifier: Apache-2.0
"""Files of a referral: taken in as they stream, given out as a download and never shown inside a page."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

from aiohttp import BodyPartReader, MultipartReader, web

from node.casework import attachments, show
from node.casework.attachments import File
from node.web.pages import pictures
from node.web.pages.page import Page, Visit, check_token, clean, go
from node.web.pages.thread import show_referral
from protocol import crypto
from protocol.encoding import ATTACHMENT_MAX_BYTES, ATTACHMENT_PART_BYTES
from protocol.errors import LocalError, say

#: Uploads of one node at once: a picture is held in memory while it is cleaned.
UPLOADS_MAX: Final = 4
#: Form fields before the file: who, what it is about.
_FIELD_MAX_BYTES: Final = 2_000
_HEAD_BYTES: Final = 4_096
_uploads = 0


async def upload(visit: Visit) -> web.StreamResponse:
    """A file goes to the other desk. It is sealed part by part; only a picture waits until it is whole."""
    global _uploads
    referral_id = visit.params["referral"]
    if _uploads >= UPLOADS_MAX:
        raise LocalError("too-many-uploads", "Others are sending files just now. Try again in a minute.")
    if (visit.request.content_length or 0) > ATTACHMENT_MAX_BYTES + 64 * 1024:
        raise _too_large()
    _uploads += 1
    upload_id = crypto.new_id()
    try:
        await visit.read(attachments.may_attach, visit.services.here, visit.actor, visit.now, referral_id=referral_id)
        field = await fields_before_file(visit)
        file, parts = await _take(visit, field, upload_id)
        await visit.do(attachments.attach, referral_id=referral_id, upload_id=upload_id, parts=parts, file=file)
    except BaseException:
        await visit.write(attachments.forget_upload, upload_id)
        raise
    finally:
        _uploads -= 1
    is_kept = await visit.read(attachments.stays_here, visit.services.here, referral_id)
    return go(f"/referrals/{referral_id}?done={'kept-here' if is_kept else 'noted'}")


async def fields_before_file(visit: Visit) -> BodyPartReader:
    """Read the fields before the file; return the file, of which nothing is read yet."""
    try:
        reader: MultipartReader = await visit.request.multipart()
        while (part := await reader.next()) is not None:
            if not isinstance(part, BodyPartReader):
                break
            if part.filename is not None:
                if not part.filename:
                    break
                check_token(visit)
                return part
            raw = await part.read_chunk(_FIELD_MAX_BYTES)
            visit.form[part.name or ""] = [clean(raw.decode("utf-8"))]
    except (ValueError, AssertionError):
        raise LocalError("not-json", "This form could not be read. Go back, reload the page, and send it again.") from (
            None
        )
    raise LocalError("no-file", "Choose a file first.")


async def _take(visit: Visit, field: BodyPartReader, upload_id: str) -> tuple[File, int]:
    name = clean(field.filename or "").replace("\\", "/").rpartition("/")[2]
    name = name[-attachments.NAME_MAX :]
    chunks = _chunks(field)
    head = b""
    async for chunk in chunks:
        head += chunk
        if len(head) >= _HEAD_BYTES:
            break
    kind = pictures.kind_of(name, head)
    if not head:
        raise LocalError("file-empty", "This file is empty. Choose another one.")
    digest, size, index, buffer = hashlib.sha256(), 0, 0, b""

    async def put(data: bytes) -> None:
        nonlocal index, size
        digest.update(data)
        size += len(data)
        await visit.do(
            attachments.stage,
            referral_id=visit.params["referral"],
            upload_id=upload_id,
            index=index,
            data=data,
        )
        index += 1

    if kind in pictures.PICTURES:
        whole = bytearray(head)
        async for chunk in chunks:
            whole += chunk
            if len(whole) > ATTACHMENT_MAX_BYTES:
                raise _too_large()
        clean_picture = pictures.without_metadata(kind, bytes(whole))
        for at in range(0, len(clean_picture), ATTACHMENT_PART_BYTES):
            await put(clean_picture[at : at + ATTACHMENT_PART_BYTES])
    else:
        buffer = head
        async for chunk in chunks:
            buffer += chunk
            while len(buffer) >= ATTACHMENT_PART_BYTES:
                await put(buffer[:ATTACHMENT_PART_BYTES])
                buffer = buffer[ATTACHMENT_PART_BYTES:]
            if size + len(buffer) > ATTACHMENT_MAX_BYTES:
                raise _too_large()
        if buffer:
            await put(buffer)
    about = visit.get("about")[:200]
    return File(crypto.new_id(), name, kind, size, digest.hexdigest(), about), index


async def _chunks(field: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await field.read_chunk(64 * 1024):
        yield chunk
    if not field.at_eof():
        raise LocalError("upload-cut", "The file did not come in whole. Send it once more.")


def _too_large() -> LocalError:
    limit = ATTACHMENT_MAX_BYTES // (1024 * 1024)
    return LocalError("too-large", say("A file has at most {limit} MiB. Make it smaller, or send parts.", limit=limit))


async def download(visit: Visit) -> web.StreamResponse:
    """The file as it was announced, or nothing: its last bytes are given only when both hashes agree."""
    referral_id, file_id = visit.params["referral"], visit.params["file"]
    here, actor = visit.services.here, visit.actor
    shown = await visit.read(show.show, here, actor, visit.now, referral_id=referral_id)
    file, reference = attachments.find(shown, file_id)
    digest, commitments, last = hashlib.sha256(), [], b""
    response = web.StreamResponse()
    response.headers["Content-Type"] = "application/octet-stream"
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(file.name, safe='')}"
    response.content_length = file.size
    for index in range(reference.parts):
        data, commitment = await visit.read(
            attachments.read_part, here, actor, referral_id=referral_id, file_id=file_id, index=index
        )
        commitments.append(commitment)
        digest.update(data)
        if index == 0:
            await visit.write(show.record_reading, actor, visit.now, referral_id)
        if index == reference.parts - 1:
            # Checked before a single byte leaves when there is one part, before the last when there are more.
            attachments.check_whole(commitments, digest.hexdigest(), file, reference)
        if index == 0:
            await response.prepare(visit.request)
        if last:
            await response.write(last)
        last = data
    await response.write(last)
    return response


PAGES: Final = [
    Page("/referrals/{referral}/files", None, upload, again=show_referral, reads_itself=True),
    Page("/referrals/{referral}/files/{file}", download),
]
