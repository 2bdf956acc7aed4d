"""The page and its slides: what is open to all, what wants the token, and what stays shut."""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from fixtures.servers import TOKEN, Client, json_of, problem_name
from fixtures.viewing import about, viewing
from wsisam_qupath.errors import SlideError
from wsisam_qupath.server.viewer.place import find_place

PAGE = files("wsisam_qupath.server.viewer") / "page"
OPENSEADRAGON_SHA256 = "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad"
"""Of OpenSeadragon 6.1.1's own minified file."""


@pytest.fixture
def folder(tmp_path: Path, tissue_path: Path) -> Path:
    """A folder of slides: one in it, two in another one, one hidden, one that is a link out."""
    content = tissue_path.read_bytes()
    shown = tmp_path / "shown"
    for name in ("slide 10.tif", "case/slide 2.tif", "case/slide 10.tif", ".hidden/x.tif"):
        path = shown / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (shown / "notes.txt").write_text("no slide", encoding="utf-8")
    (tmp_path / "secret.tif").write_bytes(content)
    return shown


@pytest.fixture
def client(folder: Path) -> Client:
    return viewing(folder)[0]


def open_paths() -> list[str]:
    return ["/view", *(f"/view/files/{one.name}" for one in PAGE.iterdir())]


def test_the_page_and_its_files_are_open_and_allow_nothing_but_themselves(client: Client) -> None:
    for path in open_paths():
        answer = client.app.test_client().get(path)

        assert answer.status_code == 200, path
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_has_no_script_and_no_style_in_it_and_names_no_other_server() -> None:
    text = (PAGE / "index.html").read_text(encoding="utf-8")

    assert "<style" not in text
    assert " style=" not in text
    assert " on" not in {part[:3] for part in text.replace("<", " ").split("  ")}
    assert text.count("<script") == text.count('src="/view/files/') == 2
    assert "http" not in text.replace("http-equiv", "")


def test_openseadragon_is_the_published_file_with_its_license() -> None:
    content = (PAGE / "openseadragon.min.js").read_bytes()
    terms = (PAGE / "openseadragon.LICENSE.txt").read_text(encoding="utf-8")

    assert hashlib.sha256(content).hexdigest() == OPENSEADRAGON_SHA256
    assert "OpenSeadragon contributors" in terms
    assert "Redistribution and use in source and binary forms" in terms


@pytest.mark.parametrize("what", ["slides", "slide", "objects", "tiles/8/0/0"])
def test_slides_objects_and_tiles_want_the_token(client: Client, what: str) -> None:
    answer = client.app.test_client().get(f"/view/{what}?slide=slide 10.tif")

    assert (answer.status_code, problem_name(answer)) == (401, "unauthorized")


def test_the_page_is_for_those_who_call_the_server_by_its_own_name(client: Client) -> None:
    answer = client.app.test_client().get("/view", headers={"Host": "evil.example"})

    assert (answer.status_code, problem_name(answer)) == (403, "forbidden-host")


def test_the_code_in_the_address_that_is_opened_gives_the_token_once(folder: Path) -> None:
    client, viewer = viewing(folder)
    enter = client.app.test_client().post
    once = {"Authorization": f"Once {viewer.entrance.code}"}

    wrong = enter("/view/token", headers={"Authorization": "Once something-else"})
    none = enter("/view/token")
    first, second = (enter("/view/token", headers=once) for _ in range(2))

    assert json_of(first) == {"token": TOKEN}
    assert [one.status_code for one in (wrong, none, second)] == [401] * 3


def test_the_slides_of_a_folder_are_listed_in_natural_order(client: Client) -> None:
    names = json_of(client.get("/view/slides"))["slides"]

    assert names == ["case/slide 2.tif", "case/slide 10.tif", "slide 10.tif"]
    assert all(about(client, "slide", name).status_code == 200 for name in names)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf8_hides_no_other_slide(client: Client, folder: Path) -> None:
    old = os.fsdecode("Gewebe größer.tif".encode("latin-1"))
    (folder / old).write_bytes(b"")
    (folder / os.fsdecode(b"f\xe4lle")).mkdir()
    (folder / os.fsdecode(b"f\xe4lle") / "slide 1.tif").write_bytes(b"")

    slides = json_of(client.get("/view/slides"))["slides"]

    assert slides == ["case/slide 2.tif", "case/slide 10.tif", "slide 10.tif"]
    with pytest.raises(SlideError, match=r"is not in UTF-8.*Rename it"):
        find_place(folder / old)


def test_of_a_slide_nothing_else_is_listed(folder: Path) -> None:
    client, _ = viewing(folder / "case" / "slide 2.tif")

    assert json_of(client.get("/view/slides")) == {"slides": ["slide 2.tif"]}


@pytest.mark.parametrize(
    "name", ["../secret.tif", "case/../../secret.tif", "/etc/passwd", "..", "a\0b.tif", "%2e%2e/x"]
)
def test_nothing_outside_of_the_folder_is_shown(client: Client, name: str) -> None:
    for what in ("slide", "objects", "tiles/8/0/0"):
        answer = about(client, what, name)

        assert answer.status_code in (403, 404), (what, answer.data)


@pytest.mark.skipif(os.name == "nt", reason="making links needs a privilege there")
def test_a_link_that_leads_out_of_the_folder_is_not_followed(client: Client, folder: Path) -> None:
    (folder / "link.tif").symlink_to(folder.parent / "secret.tif")

    answer = about(client, "slide", "link.tif")

    assert (answer.status_code, problem_name(answer)) == (403, "slide-outside")


@pytest.mark.parametrize("name", ["../routes.py", "..%2froutes.py", "routes.py", "__init__.py", ""])
def test_only_the_files_of_the_page_are_served(client: Client, name: str) -> None:
    answer = client.app.test_client().get(f"/view/files/{name}")

    assert answer.status_code in (401, 404)


def test_a_request_that_names_no_slide_is_refused(client: Client) -> None:
    answer = client.get("/view/slide")

    assert (answer.status_code, problem_name(answer)) == (422, "invalid")


def test_what_is_not_there_and_a_folder_without_slides_are_said(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="There is no slide"):
        find_place(tmp_path / "nothing.svs")
    with pytest.raises(SlideError, match="There are no slides in"):
        find_place(tmp_path)
