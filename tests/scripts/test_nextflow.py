"""The Nextflow process knows what ``segment --table`` knows. Nextflow itself is not needed here."""

from __future__ import annotations

import re
from pathlib import Path

from wsisam_qupath.options import FORMAT_ENDINGS, LABELS_ENDING
from wsisam_qupath.project.slide_table.rows import COLUMNS

MODULE = Path(__file__).resolve().parents[2] / "nextflow" / "modules" / "wsisamqupath" / "segment"
PROCESS = (MODULE / "main.nf").read_text("utf-8")


def test_the_process_hands_every_column_of_a_row_on() -> None:
    (options,) = re.findall(r"def options = \[(.*?)\]", PROCESS)

    assert ["slide", "prompts", "name", *re.findall(r"'(.*?)'", options)] == [*COLUMNS]


def test_the_process_gives_out_every_file_of_a_slide() -> None:
    (endings,) = re.findall(r'path\("\$\{prefix\}\.\{(.*?)\}"\)', PROCESS)

    assert {f".{one}" for one in endings.split(",")} == {*FORMAT_ENDINGS.values()}
    assert f'path("${{prefix}}{LABELS_ENDING}")' in PROCESS
    assert 'path("${prefix}.status.json")' in PROCESS


def test_the_description_names_each_output_of_the_process() -> None:
    described = (MODULE / "meta.yml").read_text("utf-8").partition("\noutput:\n")[2]

    assert re.findall(r"^  (\w+):$", described, re.MULTILINE) == re.findall(r"emit: (\w+)", PROCESS)
