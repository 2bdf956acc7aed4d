"""Prompts and objects from GeoJSON files."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest.mock import patch

import shapely

from fuzz.mutation import collection, text_of
from wsisam_qupath.errors import WsiSamError
from wsisam_qupath.files import json_documents as json_files
from wsisam_qupath.geojson import read_prompts
from wsisam_qupath.geojson.cleaning import read_objects


def run(seed: int) -> None:
    """Whatever a file holds, it is read or refused in a sentence, and what is read is sound."""
    random = Random(seed)
    with TemporaryDirectory() as folder:
        path = Path(folder, "x.geojson")
        path.write_bytes(text_of(collection(random), random))
        # Also as a large file is read.
        whole_bytes = random.choice([100, json_files.WHOLE_BYTES_MAX])
        with patch.object(json_files, "WHOLE_BYTES_MAX", whole_bytes):
            try:
                found = read_prompts(path, hr_l0_box_of=lambda prompt: prompt.l0_bounds)
            except WsiSamError:
                found = None
            try:
                objects = read_objects(path)
            except WsiSamError:
                objects = None
    for prompt in found.prompts if found else ():
        assert prompt.l0_outline is None or shapely.is_valid(prompt.l0_outline)
    if objects is not None:
        json.dumps(objects.features, allow_nan=False).encode()
