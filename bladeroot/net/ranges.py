"""Files laid end to end, and ranges of that, for whoever asks over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from aiohttp import web

from bladeroot.errors import DepotError

_CHUNK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def choose_range(header: str | None, total: int) -> tuple[int, int, bool]:
    """Start, length, and whether it is a part (RFC 9110, 14.2; what is not understood is ignored)."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return 0, total, False
    first, last = match.groups()
    if first == "":
        start, end = max(0, total - int(last)), total
    else:
        start, end = int(first), min(total, int(last) + 1 if last else total)
    if start >= end:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{total}"})
    return start, end - start, True


async def serve_files(
    request: web.Request, paths: Sequence[Path], *, etag: str | None = None
) -> web.StreamResponse:
    """Answer with the files laid end to end, or the range of that which is asked for."""
    sizes = await asyncio.to_thread(lambda: [path.stat().st_size for path in paths])
    start, length, is_part = choose_range(request.headers.get("Range"), sum(sizes))
    response = web.StreamResponse(status=206 if is_part else 200)
    response.content_type = "application/octet-stream"
    response.content_length = length
    response.headers["Accept-Ranges"] = "bytes"
    if etag:
        response.headers["ETag"] = f'"{etag}"'
    if is_part:
        response.headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{sum(sizes)}"
    await response.prepare(request)
    if request.method != "HEAD":
        async for chunk in read_range(paths, sizes, start, length):
            await response.write(chunk)
    await response.write_eof()
    return response


async def read_range(
    paths: Sequence[Path], sizes: Sequence[int], start: int, length: int
) -> AsyncIterator[bytes]:
    """Those bytes of the files. Raises DepotError for a file that is not as long as it was."""
    for path, size in zip(paths, sizes, strict=True):
        if start >= size:
            start -= size
            continue
        with path.open("rb") as stream:
            stream.seek(start)
            left = min(size - start, length)
            length -= left
            while left:
                chunk = await asyncio.to_thread(stream.read, min(_CHUNK_BYTES, left))
                if not chunk:
                    raise DepotError(f"{path} became shorter")
                left -= len(chunk)
                yield chunk
        start = 0
        if not length:
            return
