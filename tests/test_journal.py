"""What is logged waits for no service, outlasts its outage, and is complete or an error at the end."""

import threading

import pytest
from waiting import patience, wait_for

from nightshift.errors import InputError, OutageError
from nightshift.tracking.outbox import Outbox


class Service:
    """Takes items, unless it is away or hangs."""

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self.away, self.free = False, threading.Event()
        self.free.set()
        self.tries = 0

    def send(self, items) -> None:
        self.tries += 1
        assert self.free.wait(patience(60))
        if self.away:
            raise OutageError("the service cannot be reached")
        self.arrived += items


def test_items_arrive_in_their_order_while_more_are_added():
    service = Service()
    journal = Outbox(service.send, pause=0.001)
    for number in range(0, 3000, 3):
        journal.add([number, number + 1, number + 2])
    wait_for(lambda: service.arrived)
    journal.add([3000])
    journal.close(patience(10))
    assert service.arrived == list(range(3001))


def test_an_outage_loses_nothing(capsys):
    service = Service()
    journal = Outbox(service.send, pause=0.001)
    journal.add([1])
    wait_for(lambda: service.arrived == [1])
    service.away = True
    journal.add([2, 3])
    wait_for(lambda: service.tries > 4)
    journal.add([4])
    service.away = False
    journal.close(patience(10))
    assert service.arrived == [1, 2, 3, 4]
    assert capsys.readouterr().out.splitlines() == [
        "the service cannot be reached; meanwhile values wait here",
        "what had to wait is being sent",
    ]


def test_what_cannot_be_sent_is_an_outage_and_the_thread_ends():
    service = Service()
    service.away = True
    journal = Outbox(service.send, pause=0.01)
    journal.add([1, 2])
    wait_for(lambda: service.tries > 1)
    with pytest.raises(OutageError, match=r"2 values could not be sent within 0.1 s; the service cannot be"):
        journal.close(0.1)
    wait_for(lambda: "journal" not in {thread.name for thread in threading.enumerate()})


def test_a_service_that_hangs_makes_nobody_wait_longer_than_allowed():
    service = Service()
    service.free.clear()
    journal = Outbox(service.send, pause=0.001)
    journal.add([1])
    wait_for(lambda: service.tries)
    journal.add([2])
    with pytest.raises(OutageError, match="answers too slowly"):
        journal.close(0.05)
    assert service.arrived == []  # it hangs still
    service.free.set()


def test_a_refusal_is_raised_at_the_end():
    def refuse(items):
        raise InputError("the run was deleted")

    journal = Outbox(refuse, pause=0.001)
    journal.add([1])
    journal.add([2])
    with pytest.raises(InputError, match="the run was deleted"):
        journal.close(patience(10))
