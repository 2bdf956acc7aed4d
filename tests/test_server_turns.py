"""The line in front of the device: its length, its order, and who drops out of it."""

from __future__ import annotations

import threading
import time

import pytest

from wsisam_qupath.server.problems import ProblemError
from wsisam_qupath.server.turns import ClientGoneError, Place, Turns

PATIENCE_S = 30.0


def here() -> bool:
    return False


def place(turns: Turns) -> Place:
    return turns.admit(here, PATIENCE_S)


def start(action: object) -> threading.Thread:
    thread = threading.Thread(target=action)  # type: ignore[arg-type]
    thread.start()
    return thread


def wait_until_waiting(turns: Turns, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while turns.waiting < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_full_server_refuses_at_once_and_says_when_to_come_again() -> None:
    turns = Turns(2)
    first = place(turns)
    place(turns)

    began = time.perf_counter()
    with pytest.raises(ProblemError) as caught:
        place(turns)

    assert time.perf_counter() - began < 0.05
    assert (caught.value.name, caught.value.headers) == ("busy", {"Retry-After": "1"})
    first.leave()
    first.leave()
    place(turns)
    assert turns.in_hand == 2


def test_turns_come_in_the_order_of_asking() -> None:
    turns = Turns(8)
    order: list[int] = []
    threads = []

    def work(number: int) -> None:
        with place(turns).turn():
            order.append(number)

    with place(turns).turn():
        for number in range(5):
            threads.append(start(lambda number=number: work(number)))
            wait_until_waiting(turns, number + 1)
    for thread in threads:
        thread.join()

    assert order == [0, 1, 2, 3, 4]


def test_a_click_comes_between_the_pieces_of_a_large_request() -> None:
    turns = Turns(8)
    order: list[str] = []
    begun = threading.Event()

    def large() -> None:
        own = place(turns)
        for _ in range(5):
            with own.turn():
                order.append("piece")
                begun.set()
                wait_until_waiting(turns, 1 if "click" not in order else 0)

    def click() -> None:
        begun.wait()
        with place(turns).turn():
            order.append("click")

    for thread in [start(large), start(click)]:
        thread.join()

    assert order == ["piece", "click", "piece", "piece", "piece", "piece"]


def test_one_whose_client_has_gone_drops_out_without_computing() -> None:
    turns = Turns(8)
    gone = threading.Event()
    dropped = []

    def work() -> None:
        try:
            with turns.admit(gone.is_set, PATIENCE_S).turn():
                dropped.append("computed")
        except ClientGoneError:
            dropped.append("gone")

    with place(turns).turn():
        thread = start(work)
        wait_until_waiting(turns, 1)
        gone.set()
        thread.join(PATIENCE_S)

    assert dropped == ["gone"]
    assert turns.waiting == 0


def test_one_that_waits_too_long_is_told() -> None:
    turns = Turns(8)
    slow = turns.admit(here, 0.01)

    with place(turns).turn(), pytest.raises(ProblemError) as caught:
        slow.turn().__enter__()

    assert (caught.value.name, caught.value.status) == ("too-slow", 504)


def test_an_answer_renews_the_time() -> None:
    slow = Turns(8).admit(here, 0.05)
    time.sleep(0.06)
    with pytest.raises(ProblemError):
        slow.check()

    slow.renew()

    slow.check()


def test_closing_refuses_new_requests_and_finishes_those_in_hand() -> None:
    turns = Turns(8)
    own = place(turns)
    closing = start(lambda: turns.close(PATIENCE_S))
    with pytest.raises(ProblemError) as caught:
        while True:
            place(turns).leave()

    assert caught.value.name == "busy"
    with own.turn():
        pass
    own.leave()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()


def test_closing_refuses_in_the_end_what_takes_too_long() -> None:
    turns = Turns(8)
    own = place(turns)

    turns.close(0.01)

    with pytest.raises(ProblemError, match="stopped before this was done"), own.turn():
        pass
