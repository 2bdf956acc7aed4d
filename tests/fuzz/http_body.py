"""Bodies of requests to the server, which has no model."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from random import Random
from typing import Any

from PIL import Image

from fixtures.servers import Client, client_of
from fuzz.mutation import changed, collection, damaged, text_of


@lru_cache(maxsize=1)
def _client() -> Client:
    return client_of()


def run(seed: int) -> None:
    """Whatever is sent, the answer is one of those that the server states, and never 500."""
    random = Random(seed)
    body = text_of(_document(random), random)
    path = random.choice(["/v1/segment", "/v1/segment", "/v1/nothing"])

    answer = _client().post(path, body)

    assert answer.status_code in (400, 404, 413, 415, 422, 500, 503), answer.status_code
    if answer.status_code == 500:  # there is no model: a request that is right in itself
        assert b"The model cannot be loaded" in answer.data, answer.data


def _document(random: Random) -> Any:
    document: Any = {
        "slide": {"uri": "/x.svs", "width": 512, "height": 512, "mpp_x": 0.5},
        "prompts": collection(random),
        "options": {"points_as": "each", "class": "Tumor", "simplify_um": 0.5},
    }
    if random.random() < 0.5:
        file = io.BytesIO()
        size = random.choice([(1, 1), (64, 64), (2000, 3)])
        Image.new("RGB", size).save(file, random.choice(["PNG", "JPEG", "GIF"]))
        content = damaged(file.getvalue(), random)
        text = base64.b64encode(content).decode("ascii")
        document["regions"] = [{"x": 0, "y": 0, "width": 64, "height": 64, "image": text}]
    if random.random() < 0.2:
        document["refine"] = collection(random)
    for _ in range(random.randrange(4)):
        document = changed(document, random)
    return document
