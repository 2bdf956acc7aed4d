"""Java finds the files that Python finds, whatever the locale says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.command_line import run_python

LOOKING = """
import sys
from pathlib import Path
from wsisam_qupath.qupath.jvm.java import java_path
from wsisam_qupath.qupath.jvm.process import QuPathProcess

def is_there(path):
    return bool(java_path(path).toFile().exists())

if __name__ == "__main__":
    with QuPathProcess() as qupath:
        print(qupath.run(is_there, Path(sys.argv[1])))
"""


@pytest.mark.qupath
@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"LC_ALL": "", "LANG": "", "LC_CTYPE": ""}])
def test_java_finds_a_file_with_an_umlaut_where_the_locale_has_none(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    path = tmp_path / "Größe ☃" / "Bär.txt"
    path.parent.mkdir()
    path.touch()
    script = tmp_path / "looking.py"
    script.write_text(LOOKING, encoding="utf-8")

    answer = run_python(script, path, cwd=None, **variables)

    assert (answer.code, answer.out) == (0, "True\n"), answer.err
