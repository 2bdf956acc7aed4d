"""The line in front of the device: its length, its order, and who drops out of it."""

from __future__ import annotations

import threading
import time

import pytest

from wsisam_qupath.server.problems import ProblemError
from wsisam_qupath.server.queue import ClientGoneError, DeviceQueue, DroppedError, QueueSlot

PATIENCE_S = 30.0


def here() -> bool:
    return False


def slot(device_queue: DeviceQueue) -> QueueSlot:
    return device_queue.acquire(here, PATIENCE_S)


def start(action: object) -> threading.Thread:
    thread = threading.Thread(target=action)  # type: ignore[arg-type]
    thread.start()
    return thread


def wait_until_waiting(device_queue: DeviceQueue, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while device_queue.waiting < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_full_server_refuses_at_once_and_says_when_to_come_again() -> None:
    device_queue = DeviceQueue(2)
    first = slot(device_queue)
    slot(device_queue)

    began = time.perf_counter()
    with pytest.raises(ProblemError) as caught:
        slot(device_queue)

    assert time.perf_counter() - began < 0.05
    assert (caught.value.name, caught.value.headers) == ("busy", {"Retry-After": "1"})
    first.release()
    first.release()
    slot(device_queue)
    assert device_queue.in_hand == 2


def test_turns_come_in_the_order_of_asking() -> None:
    device_queue = DeviceQueue(8)
    order: list[int] = []
    threads = []

    def work(number: int) -> None:
        with slot(device_queue).turn():
            order.append(number)

    with slot(device_queue).turn():
        for number in range(5):
            threads.append(start(lambda number=number: work(number)))
            wait_until_waiting(device_queue, number + 1)
    for thread in threads:
        thread.join()

    assert order == [0, 1, 2, 3, 4]


def test_a_click_comes_between_the_pieces_of_a_large_request() -> None:
    device_queue = DeviceQueue(8)
    order: list[str] = []
    begun = threading.Event()

    def large() -> None:
        own = slot(device_queue)
        for _ in range(5):
            with own.turn():
                order.append("piece")
                begun.set()
                wait_until_waiting(device_queue, 1 if "click" not in order else 0)

    def click() -> None:
        begun.wait()
        with slot(device_queue).turn():
            order.append("click")

    for thread in [start(large), start(click)]:
        thread.join()

    assert order == ["piece", "click", "piece", "piece", "piece", "piece"]


def test_one_whose_client_has_gone_drops_out_without_computing() -> None:
    device_queue = DeviceQueue(8)
    gone = threading.Event()
    dropped = []

    def work() -> None:
        try:
            with device_queue.acquire(gone.is_set, PATIENCE_S).turn():
                dropped.append("computed")
        except ClientGoneError:
            dropped.append("gone")

    with slot(device_queue).turn():
        thread = start(work)
        wait_until_waiting(device_queue, 1)
        gone.set()
        thread.join(PATIENCE_S)

    assert dropped == ["gone"]
    assert device_queue.waiting == 0


def test_one_that_waits_too_long_is_told() -> None:
    device_queue = DeviceQueue(8)
    slow = device_queue.acquire(here, 0.01)

    with slot(device_queue).turn(), pytest.raises(ProblemError) as caught:
        slow.turn().__enter__()

    assert (caught.value.name, caught.value.status) == ("too-slow", 504)


def test_an_answer_renews_the_time() -> None:
    slow = DeviceQueue(8).acquire(here, 0.05)
    time.sleep(0.06)
    with pytest.raises(ProblemError):
        slow.check()

    slow.extend_deadline()

    slow.check()


def test_closing_refuses_new_requests_and_finishes_those_in_hand() -> None:
    device_queue = DeviceQueue(8)
    own = slot(device_queue)
    closing = start(lambda: device_queue.close(PATIENCE_S))
    with pytest.raises(ProblemError) as caught:
        while True:
            slot(device_queue).release()

    assert caught.value.name == "busy"
    with own.turn():
        pass
    own.release()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()


def test_closing_refuses_in_the_end_what_takes_too_long() -> None:
    device_queue = DeviceQueue(8)
    own = slot(device_queue)

    device_queue.close(0.01)

    with pytest.raises(ProblemError, match="stopped before this was done"), own.turn():
        pass


def test_work_ahead_of_time_waits_for_all_other_work() -> None:
    device_queue = DeviceQueue(8)
    order: list[str] = []

    def work(name: str, *, is_ahead: bool) -> None:
        with device_queue.acquire(here, PATIENCE_S, is_ahead=is_ahead).turn():
            order.append(name)

    with slot(device_queue).turn():
        threads = [start(lambda: work("ahead", is_ahead=True))]
        wait_until_waiting(device_queue, 1)
        threads.append(start(lambda: work("click", is_ahead=False)))
        wait_until_waiting(device_queue, 2)
    for thread in threads:
        thread.join()

    assert order == ["click", "ahead"]


def test_the_next_work_ahead_of_time_drops_the_one_before() -> None:
    device_queue = DeviceQueue(8)
    stale = device_queue.acquire(here, PATIENCE_S, is_ahead=True)

    device_queue.acquire(here, PATIENCE_S, is_ahead=True).check()

    with pytest.raises(DroppedError), stale.turn():
        pass
