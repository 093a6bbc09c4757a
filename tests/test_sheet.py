"""The contact sheet shows what can be seen of refused files, half images included."""

import cv2
import numpy as np
import pytest

from nightshift import storage
from nightshift.data.contact_sheet import CELL, LINE, LINES, Picture, contact_sheet
from nightshift.errors import InputError


def jpeg(colour: tuple[int, int, int]) -> bytes:
    noise = np.random.default_rng(1).integers(0, 30, (200, 200, 3))
    pixels = np.clip(np.full((200, 200, 3), colour) + noise, 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def test_half_an_image_is_shown_and_what_cannot_be_seen_is_left_out(tmp_path):
    source = f"file://{tmp_path}"
    storage.write(f"{source}/b/red.jpg", jpeg((0, 0, 220))[:-500])
    storage.write(f"{source}/b/green.jpg", jpeg((0, 220, 0)))
    storage.write(f"{source}/b/noise.jpg", b"not an image")
    names = ("red", "noise", "gone", "green")
    pictures = [Picture(f"{source}/b/{name}.jpg", "truncated") for name in names]
    picture, seen = contact_sheet(pictures)
    assert seen == 2
    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (CELL + LINES * LINE, 2 * CELL, 3)
    first, second = pixels[20, CELL // 2], pixels[20, CELL + CELL // 2]
    assert first.argmax() == 2
    assert second.argmax() == 1


def test_nothing_to_see_is_said(tmp_path):
    with pytest.raises(InputError, match="nothing can be seen of 1 files"):
        contact_sheet([Picture(f"file://{tmp_path}/b/gone.jpg", "gone")])
