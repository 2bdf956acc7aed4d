"""MS COCO files."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from fuzz.mutation import changed, ring, text_of
from wsisam_qupath.errors import WsiSamError
from wsisam_qupath.geojson.coco import read_coco_annotations


def run(seed: int) -> None:
    """Whatever a file holds, it is read or refused in a sentence."""
    random = Random(seed)
    document: Any = {
        "images": [{"id": n, "file_name": f"{n}.svs"} for n in range(2)],
        "categories": [{"id": 1, "name": "Tumor"}, {"id": 2, "name": "Stroma"}],
        "annotations": [
            {
                "id": n,
                "image_id": random.randrange(3),
                "category_id": random.randrange(3),
                "segmentation": [[x for point in ring(random) for x in point]],
            }
            for n in range(3)
        ],
    }
    for _ in range(random.randrange(5)):
        document = changed(document, random)
    with TemporaryDirectory() as folder:
        path = Path(folder, "coco.json")
        path.write_bytes(text_of(document, random))
        with suppress(WsiSamError):
            json.dumps(dict(read_coco_annotations(path).features), allow_nan=False).encode()
