"""Calls to a front-end: they reach it, and nothing that it does makes them wait."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterator

import pytest

from emulator.vhost_user.signals import Signal, Signaller

MOST = 2**64 - 2
"""Of a counter; a plain write of 1 blocks from here on."""


@pytest.fixture
def signaller() -> Iterator[Signaller]:
    made = Signaller()
    yield made
    made.close()


def test_a_counter_goes_up_however_often(signaller: Signaller) -> None:
    """Also beyond what asynchronous I/O remembers of requests that are done."""
    fd = os.eventfd(0)
    signal = Signal(os.dup(fd), signaller)
    assert all(signal.send() for _ in range(1000))
    assert os.eventfd_read(fd) == 1000
    signal.close()
    os.close(fd)


def test_no_write_to_a_blocking_counter_is_tried(signaller: Signaller) -> None:
    """A full one takes the call all the same, as no write could: so there is no moment between a
    look at it and a write in which the other process could fill it."""
    if not signaller._native.context:
        pytest.skip("this system has no asynchronous I/O: calls look before they write")
    fd = os.eventfd(0)
    assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
    os.eventfd_write(fd, MOST)
    signal = Signal(os.dup(fd), signaller)
    assert signal.send()
    assert signal.send()
    assert os.eventfd_read(fd) == MOST + 1
    signal.close()
    os.close(fd)


def test_without_asynchronous_io_a_full_counter_is_left_alone(signaller: Signaller) -> None:
    """Some sandboxes forbid it."""
    context, signaller._native.context = signaller._native.context, 0
    fd = os.eventfd(0)
    assert signaller.send(fd)
    os.eventfd_write(fd, MOST - 1)
    assert not signaller.send(fd)
    assert os.eventfd_read(fd) == MOST
    signaller._native.context = context
    os.close(fd)


def test_a_pipe_is_written_to_by_a_description_of_our_own(signaller: Signaller) -> None:
    """What the other process does to the flags of its own changes nothing."""
    theirs, ours = os.pipe()
    signal = Signal(os.dup(ours), signaller)
    sent = 0
    while signal.send():
        sent += 1
    assert len(os.read(theirs, 1 << 20)) == 8 * sent
    assert not fcntl.fcntl(ours, fcntl.F_GETFL) & os.O_NONBLOCK
    assert signal.send()
    signal.close()
    os.close(theirs)
    os.close(ours)


def test_descriptors_above_1024(signaller: Signaller) -> None:
    """A process that serves many guests has them."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[1] != resource.RLIM_INFINITY and limit[1] < 2048:
        pytest.skip(f"no more than {limit[1]} descriptors can be had")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], 2048), limit[1]))
    fd = os.eventfd(0)
    signal = Signal(fcntl.fcntl(fd, fcntl.F_DUPFD, 1500), signaller)
    assert signal.send()
    assert os.eventfd_read(fd) == 1
    signal.close()
    os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
