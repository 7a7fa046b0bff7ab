"""One thread's epoll loop. Without events it sleeps; nothing in it wakes up by itself."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from emulator.vhost_user.signals import Signaller

__all__ = ["EventLoop"]

T = TypeVar("T")


class EventLoop:
    """Callbacks for descriptors, and calls from other threads."""

    def __init__(self) -> None:
        self.signaller = Signaller()
        """For event descriptors of other processes."""
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._waker = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._stopped = False
        self.watch(self._waker, self._wake)

    def watch(self, fd: int, callback: Callable[[], None], *, edges: bool = False) -> None:
        """Call back while `fd` is readable or at its end.

        With `edges`, only when something arrives: it need not be read then, so that a descriptor
        shared with a hostile process can neither block this thread nor keep it busy. A callback
        may come once without cause. OSError where the descriptor cannot be waited for.
        """
        events = select.EPOLLIN | (select.EPOLLET if edges else 0)
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Before it is closed: the other process may hold the same file open."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run_once(self, timeout_s: float | None) -> None:
        """Wait for events, and deliver them. None: for as long as it takes."""
        for fd, _ in self._epoll.poll(-1 if timeout_s is None else timeout_s):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the loop's thread, from any thread; its result, or its exception.

        Runs at once where no loop runs, or from inside of it.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        with self._lock:
            elsewhere = self._thread not in (None, threading.get_ident())
            if elsewhere:
                self._calls.append(run)
        if elsewhere:
            os.eventfd_write(self._waker, 1)
        else:
            run()
        return future.result()

    def stop(self) -> None:
        """Have `running` become False; from any thread, and from a signal handler."""
        self._stopped = True
        os.eventfd_write(self._waker, 1)

    @property
    def running(self) -> bool:
        """Nobody asked it to stop."""
        return not self._stopped

    def begin(self) -> None:
        """From here on, the calling thread runs the loop."""
        with self._lock:
            self._thread = threading.get_ident()

    def finish(self) -> None:
        """The loop's thread makes no further rounds: from here on, calls run in the caller's."""
        with self._lock:
            self._thread = None
        self._run_calls()

    def _wake(self) -> None:
        os.eventfd_read(self._waker)
        self._run_calls()

    def _run_calls(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def close(self) -> None:
        """Give its descriptors back."""
        self._callbacks.clear()
        self._epoll.close()
        self.signaller.close()
        os.close(self._waker)
