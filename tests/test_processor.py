"""How many threads a process takes."""

import os

import pytest

from nightshift.errors import InputError
from nightshift.hardware import processor


def test_threads_are_those_of_the_environment_or_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processor.threads({}) == processor.cores()
    assert processor.threads({"NIGHTSHIFT_THREADS": ""}) == processor.cores()
    monkeypatch.setenv("NIGHTSHIFT_THREADS", "3")
    assert processor.threads() == 3


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", "²"])
def test_what_is_no_number_of_threads_is_told(asked: str) -> None:
    with pytest.raises(InputError, match="NIGHTSHIFT_THREADS must be a whole number from 1, got"):
        processor.threads({"NIGHTSHIFT_THREADS": asked})


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_cores_that_the_process_may_not_use_do_not_count() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert processor.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
