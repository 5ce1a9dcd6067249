"""Whose turn it is."""

from __future__ import annotations

import threading
import time

import pytest

from prompt_mamba_arch.app.turns import Turns
from prompt_mamba_arch.errors import UserError


def _until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_first_come_first_served_and_no_more_than_fit():
    turns, log, told, gates = Turns(jobs=2, waiting=3), [], [], [threading.Event() for _ in range(5)]

    def work(number):
        with turns.turn(tell=lambda ahead: told.append((number, ahead))):
            log.append(number)
            gates[number].wait(20)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for number, thread in enumerate(threads):
        thread.start()
        _until(lambda n=number: n in log if n < 2 else any(who == n for who, _ in told))
    assert sorted(log) == [0, 1] and [one for one in told if one[0] >= 2] == [(2, 0), (3, 1), (4, 2)]
    with pytest.raises(UserError, match="3 photos are waiting already"), turns.turn():
        pass
    gates[1].set()
    _until(lambda: len(log) == 3)
    assert log[2] == 2
    for gate in gates:
        gate.set()
    for thread in threads:
        thread.join(20)
    assert log[2:] == [2, 3, 4]
    with turns.turn(), turns.turn():  # both are free again
        pass


def test_who_gives_up_makes_room():
    turns, given_up = Turns(jobs=1, waiting=1), threading.Event()

    class GivenUp(Exception):
        pass

    def go_on():
        if given_up.is_set():
            raise GivenUp

    caught = []

    def wait():
        try:
            with turns.turn(go_on):
                caught.append("a turn")
        except GivenUp:
            caught.append("given up")

    with turns.turn():
        thread = threading.Thread(target=wait)
        thread.start()
        given_up.set()
        thread.join(20)
        assert caught == ["given up"]
    with pytest.raises(ZeroDivisionError), turns.turn():  # a job that fails gives its place back, too
        raise ZeroDivisionError
    with turns.turn():
        pass
