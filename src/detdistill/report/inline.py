"""Pictures inside the page, so that it needs no other file."""

from __future__ import annotations

import base64
import io

from PIL import Image

_QUALITY = 85


def data_uri(content: bytes, kind: str) -> str:
    """What an `img` element shows; `kind` as in `image/png`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def webp(picture: Image.Image) -> bytes:
    """The picture in few bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=_QUALITY, method=4)
    return buffer.getvalue()
