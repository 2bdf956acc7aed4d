from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.command_line import environment
from wsisam_qupath.errors import PromptError
from wsisam_qupath.files import json_documents as json_files
from wsisam_qupath.files.json_documents import BYTES_MAX, JsonList, read_json
from wsisam_qupath.geojson import read_prompts
from wsisam_qupath.geojson.cleaning import read_objects
from wsisam_qupath.geojson.coco import read_coco_annotations
from wsisam_qupath.prompts import PromptSet

CURE = "Export it again."


@pytest.fixture
def all_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files above 400 bytes are read piece by piece."""
    monkeypatch.setattr(json_files, "WHOLE_BYTES_MAX", 400)


def square(number: int) -> dict[str, object]:
    x = 100 * number
    ring = [[x, 0], [x + 50.5, 0], [x + 40, 50], [x, 50], [x, 0]]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}


def prompts(path: Path) -> PromptSet:
    return read_prompts(path, hr_l0_box_of=lambda prompt: prompt.l0_bounds)


def written(path: Path, document: object, *, bom: bool = False) -> Path:
    content = json.dumps(document, ensure_ascii=False)
    path.write_text(content, encoding="utf-8-sig" if bom else "utf-8")
    return path


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_large_file_reads_as_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bom: bool, as_list: bool
) -> None:
    features = [square(number) for number in range(20)]
    document = features if as_list else {"type": "FeatureCollection", "features": features}
    path = written(tmp_path / "ü.geojson", document, bom=bom)
    as_whole = prompts(path), read_objects(path)

    monkeypatch.setattr(json_files, "WHOLE_BYTES_MAX", 400)

    assert (prompts(path), read_objects(path)) == as_whole
    assert len(as_whole[0].prompts) == 20


def test_a_large_coco_file_reads_as_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"id": n, "image_id": 1, "category_id": 1, "segmentation": [[n, 0, n + 9, 0, n + 9, 9]]}
        for n in range(30)
    ]
    document = {
        "info": {"year": 2026},
        "images": [{"id": 1, "file_name": "a.svs"}],
        "annotations": rows,
        "categories": [{"id": 1, "name": "Tumor"}],
    }
    path = written(tmp_path / "coco.json", document)
    as_whole = read_coco_annotations(path)

    monkeypatch.setattr(json_files, "WHOLE_BYTES_MAX", 400)

    assert read_coco_annotations(path) == as_whole
    assert len(as_whole.features["a.svs"]) == 30


@pytest.mark.usefixtures("all_is_large")
@pytest.mark.parametrize("content", ['{"a": [', "[1, 2", "nothing", '{"a": "\\', "[" * 5000])
def test_a_large_file_that_is_damaged_is_said_to_be(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content + " " * 500)

    with pytest.raises(PromptError, match=rf"x\.json .*{CURE}"):
        read_json(path, fix=CURE)


@pytest.mark.usefixtures("all_is_large")
def test_one_element_of_a_large_file_that_is_too_large_itself_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x.json", [1, "x" * 1000])

    with pytest.raises(PromptError, match=r"x\.json: element 2 of its list takes"):
        read_json(path, fix=CURE)


@pytest.mark.parametrize("is_large", [False, True])
def test_of_a_file_that_is_cut_off_it_is_told_how_much_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    monkeypatch.setattr(json_files, "WHOLE_BYTES_MAX", 400 if is_large else 4000)
    path = written(tmp_path / "x.json", {"features": [square(number) for number in range(9)]})
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(PromptError, match=r"x\.json is cut off after 8 whole elements") as found:
        read_json(path, fix=CURE)
    assert CURE in str(found.value)


def test_a_file_of_nothing_but_space_is_read_to_its_end_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "space.json"
    path.write_bytes(b" " * (40 << 20))

    with pytest.raises(PromptError, match="is cut off after 0 whole elements"):
        read_json(path, fix=CURE)


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 64])
def test_where_the_blocks_end_makes_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(json_files, "WHOLE_BYTES_MAX", 60)
    monkeypatch.setattr(json_files, "_BLOCK_BYTES", block_bytes)
    document = {
        "ü": [1, -2.5e-3, 123456789, 'ä"\\𝄞', True, None, {"a": [[]]}, []],
        "n": 42,
        "empty": [],
        "last": [0.5],
    }
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    told: list[int] = []

    found = read_json(path, fix=CURE, on_read=told.append)

    assert isinstance(found, dict)
    plain = {key: list(one) if isinstance(one, JsonList) else one for key, one in found.items()}
    assert plain == document
    assert sum(told) > path.stat().st_size


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.geojson"
    with path.open("wb") as file:
        file.truncate(BYTES_MAX + 1)

    with pytest.raises(PromptError, match="larger than 1024 MiB"):
        read_json(path, fix=CURE)


@pytest.mark.skipif(os.name == "nt", reason="no pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.geojson")

    with pytest.raises(PromptError, match="not an ordinary file"):
        read_json(tmp_path / "pipe.geojson", fix=CURE)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_prompts_file_of_70_mb_takes_less_than_200_mb(tmp_path: Path) -> None:
    path = tmp_path / "many.geojson"
    ring = [[float(x), x * x / 7] for x in range(200)]
    outline = json.dumps(
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    )
    with path.open("w") as file:
        file.write('{"type":"FeatureCollection","features":[')
        file.write(",".join([outline] * (70_000_000 // len(outline))))
        file.write("]}")
    script = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from wsisam_qupath.geojson.reading import list_features\n"
        "from wsisam_qupath.files.json_documents import read_json\n"
        "found = sum(1 for _ in list_features(read_json(Path(sys.argv[1]), fix='')))\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(found, re.search(r'VmHWM:\\s+(\\d+)', status)[1])\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, path],
        check=True,
        capture_output=True,
        env=environment(),
    )

    count, peak_kib = map(int, done.stdout.split())
    assert count == 70_000_000 // len(outline)
    assert peak_kib < 200_000
