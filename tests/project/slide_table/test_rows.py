"""Tables of slides: what is read of them, and rows that cannot be used, by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsisam_qupath.errors import PromptError
from wsisam_qupath.geometry import Mpp
from wsisam_qupath.options import OutlineOptions
from wsisam_qupath.project.slide_table.rows import Shard, TableRow, read_rows, write_rows


def table_of(folder: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path = folder / "slides.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def test_paths_are_relative_to_the_table_and_names_come_from_the_slides(tmp_path: Path) -> None:
    path = table_of(tmp_path, "slide,prompts", "scans/a.ome.tif,drawn/a.geojson", "/b/c.svs,c.json")

    rows = read_rows(path)

    assert rows == (
        TableRow(2, str(tmp_path / "scans/a.ome.tif"), tmp_path / "drawn/a.geojson", "a"),
        TableRow(3, "/b/c.svs", tmp_path / "c.json", "c"),
    )


def test_a_row_may_have_options_of_its_own(tmp_path: Path) -> None:
    path = table_of(
        tmp_path,
        "slide,prompts,name,mpp,points,object-size,simplify,min-area,as,candidates",
        "a.svs,a.json,first,0.25,each,40,0.5,20,annotation,3",
        "a.svs,a.json,second,0.25 0.26,,,,,,",
    )

    first, second = read_rows(path)

    assert (first.name, first.mpp) == ("first", Mpp(0.25, 0.25))
    assert first.merge(OutlineOptions()) == OutlineOptions(
        40, 0.5, 20, "each", "annotation", None, 3
    )
    assert second.mpp == Mpp(0.25, 0.26)
    assert second.merge(OutlineOptions(simplify_um=7)) == OutlineOptions(simplify_um=7)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_tables_of_spreadsheets_are_read(tmp_path: Path, encoding: str) -> None:
    path = table_of(tmp_path, "Slide;Prompts", '"Schnitt; ü.svs";a.json', ";", encoding=encoding)

    (row,) = read_rows(path)

    assert row.slide == str(tmp_path / "Schnitt; ü.svs")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    mpp = Mpp(0.1 + 0.2, 0.25)
    rows = (
        TableRow(2, "/slides/ü, 1.svs", tmp_path / "p" / "ü, 1.geojson", "ü, 1", mpp),
        TableRow(3, "/slides/b.svs", Path("/elsewhere/b.geojson"), "b"),
    )

    write_rows(tmp_path / "out.csv", rows)

    assert read_rows(tmp_path / "out.csv") == rows


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_shards_cover_each_row_once(tmp_path: Path, count: int) -> None:
    names = [f"{number}.svs,p.json" for number in range(23)]
    rows = read_rows(table_of(tmp_path, "slide,prompts", *names))

    parts = [Shard(number, count).take(rows) for number in range(1, count + 1)]

    assert sorted(row.line for part in parts for row in part) == [row.line for row in rows]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "line 1: name the columns"),
        (["slide,prompt", "a,b"], "'prompt' is none of them"),
        (["slide", "a"], "line 1: name the columns"),
        (["slide,prompts,slide", "a,b,c"], "line 1: name the columns"),
        (["slide,prompts"], "has no rows"),
        (["slide,prompts", "a.svs,a.json", ",b.json"], "line 3: the slide is missing"),
        (["slide,prompts", "a.svs,"], "line 2: the prompts is missing"),
        (["slide,prompts", "a.svs,a.json,more"], "line 2: it has another number of cells"),
        (["slide,prompts,mpp", "a.svs,a.json,big"], "line 2: 'big' is not a number of µm"),
        (["slide,prompts,mpp", "a.svs,a.json,900"], "line 2: "),
        (["slide,prompts,candidates", "a.svs,a.json,9"], "line 2: "),
        (["slide,prompts,points", "a.svs,a.json,all"], "'all' is not together or each"),
        (["slide,prompts,name", "a.svs,a.json,a/b"], "cannot be the name of a file"),
        (["slide,prompts", "a.svs,a.json", "x/A.tif,b.json"], "lines 2 and 3: their results"),
    ],
)
def test_what_cannot_be_used_is_named_by_line(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(PromptError) as caught:
        read_rows(table_of(tmp_path, *lines))

    assert words in str(caught.value)
    assert str(tmp_path / "slides.csv") in str(caught.value)


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"line 6: .*, and 15 more\. Correct the table\."):
        read_rows(table_of(tmp_path, "slide,prompts", *["a.svs,"] * 20))


def test_a_table_that_is_missing_or_in_another_encoding_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="cannot be read"):
        read_rows(tmp_path / "none.csv")
    with pytest.raises(PromptError, match="UTF-8"):
        read_rows(table_of(tmp_path, "slide,prompts", "ü.svs,a.json", encoding="latin-1"))
