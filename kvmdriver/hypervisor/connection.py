"""The connection to libvirt: opened when needed, reopened when lost, every call with a deadline."""

import concurrent.futures
import contextlib
import contextvars
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import libvirt

from kvmdriver import exception
from kvmdriver.hypervisor import errors
from kvmdriver.hypervisor.events import LOOP, Event, EventBus
from kvmdriver.hypervisor.guest_calls import GuestCalls, agent_of, unresponsive
from kvmdriver.hypervisor.lanes import Lanes
from kvmdriver.hypervisor.pace import PICKED_UP, Pace
from kvmdriver.hypervisor.threads import CallThreads

LOG = logging.getLogger(__name__)

T = TypeVar("T")

# How long libvirtd has to answer the cheapest of questions before callers are told that it hangs,
# and before the connection is given up, together with the changes that wait on it.
_PROBE_SECONDS = 1.0
_SILENCE_SECONDS = 10.0
# How long callers wait for a connection that is being opened. After that they fail at once.
_OPEN_SECONDS = 10.0
# Attempts to open a connection that hang, and that no more are added to.
_HANGING_ATTEMPTS = 8
# What was waited for has ended by other means: its call returns within moments.
_MOMENT = 2.0

_THREADS = CallThreads("libvirt-call")

_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("deadline", default=None)


class PendingCall:
    """A libvirt call that takes as long as it takes."""

    def __init__(
        self,
        future: concurrent.futures.Future[Any],
        translate: Callable[[libvirt.libvirtError], Exception],
    ):
        self._future = future
        self._translate = translate

    def wait(self, seconds: float) -> bool:
        """Return whether the call has ended, at the latest after so many seconds."""
        concurrent.futures.wait([self._future], seconds)
        return self._future.done()

    def result(self) -> Any:
        """Return what the call has given; it must have ended.

        :raises kvmdriver.exception.KVMDriverError: libvirt's error, translated.
        """
        try:
            return self._future.result(0)
        except libvirt.libvirtError as error:
            raise self._translate(error) from error


@dataclasses.dataclass(eq=False)
class _Probe:
    """The cheapest of questions to a libvirtd that may hang, and its answer."""

    raw: libvirt.virConnect
    answer: "concurrent.futures.Future[Any]"


class _Attempt:
    """One try to open the connection; it may hang for as long as libvirtd does."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ended = threading.Event()
        self.error: exception.KVMDriverError | None = None

    @property
    def age(self) -> float:
        return time.monotonic() - self.began


class Connection:
    """One libvirt URI.

    Two kinds of calls are kept apart. ``call`` is for what libvirt answers from its own memory:
    such calls share one connection, which also brings the events. ``call_guest`` is for what needs
    the QEMU of a guest or libvirt's job on it, and may hang with that guest: such calls go over
    connections of their own (see ``Lanes``), are counted (see ``GuestCalls``) and begin one by one
    (see ``Pace``).

    Each call runs in a thread of ours and is waited for with a deadline. When the deadline has
    passed libvirtd is asked for its version: if libvirtd answers, the connection stays. Otherwise
    questions (see ``within``) fail at once from then on. A libvirtd that stays silent loses the
    connection: those who wait on it are woken, and later calls fail until a connection has been
    opened again, which is tried in the background. The new connection registers for events again,
    since libvirt forgets registrations.
    """

    def __init__(
        self,
        uri: str,
        *,
        call_timeout: float = 60,
        keepalive_interval: int = 5,
        keepalive_count: int = 3,
    ):
        self.uri = uri
        self.events = EventBus()
        self.call_timeout = call_timeout
        self.guests = GuestCalls()
        self._pace = Pace()
        self._keepalive = (keepalive_interval, keepalive_count)
        self._lock = threading.Lock()
        self._raw: libvirt.virConnect | None = None
        self._attempt: _Attempt | None = None
        self._hanging = 0
        self._probe: _Probe | None = None
        self._waiting: set[threading.Event] = set()
        self._lanes = Lanes(self._open_lane)
        self._closed = False

    @property
    def embedded(self) -> bool:
        """Whether the QEMU driver runs in this process (https://libvirt.org/drvqemu.html)."""
        return "/embed" in self.uri

    @property
    def alive(self) -> bool:
        """Whether there is a connection that has not been noticed to be lost."""
        return self._raw is not None

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Have all calls that this thread makes in the body take so many seconds, together."""
        given = time.monotonic() + seconds
        earlier = _deadline.get()
        token = _deadline.set(given if earlier is None else min(given, earlier))
        try:
            yield
        finally:
            _deadline.reset(token)

    def call(
        self,
        function: Callable[..., T],
        *args: Any,
        instance: str | None = None,
        timeout: float | None = None,
    ) -> T:
        """Run a libvirt call that waits for no guest, and wait for it.

        :param timeout: seconds; the configured call timeout when None.
        :raises kvmdriver.exception.HypervisorTimeout: it did not return in time.
        :raises kvmdriver.exception.KVMDriverError: libvirt's error, translated.
        """
        raw = self.raw()
        probe = self._probe
        if probe is not None and _deadline.get() is not None:
            concurrent.futures.wait([probe.answer], min(_PROBE_SECONDS, self._seconds(None)))
            self._require_answer(probe)
        seconds = self._seconds(timeout)
        begun = self._pace.join()
        future = _THREADS.submit(function, *args)
        future.add_done_callback(lambda _future: self._pace.leave(begun))
        done = threading.Event()
        future.add_done_callback(lambda _future: done.set())
        with self._lock:
            self._waiting.add(done)
        try:
            done.wait(seconds)
        finally:
            with self._lock:
                self._waiting.discard(done)
        if not future.done() and raw is self._raw:
            self._check(raw)
            raise _timeout(getattr(function, "__name__", "a call"), seconds, instance)
        return self._outcome(future, raw, instance)

    def call_guest(
        self,
        uuid: str,
        function: Callable[[libvirt.virDomain], T],
        *,
        instance: str | None = None,
        timeout: float | None = None,
        agent: bool = False,
        ends: bool = False,
    ) -> T:
        """Run a call of a domain that its QEMU, or libvirt's job on it, may keep waiting.

        :param function: takes the domain, on a connection for such calls.
        :param timeout: seconds; the configured call timeout when None.
        :param agent: the guest agent is asked, and not QEMU.
        :param ends: the call ends the QEMU, so it is not counted and never refused.
        :raises kvmdriver.exception.InstanceUnresponsive: the guest did not answer in time, or
            earlier calls wait for it.
        :raises kvmdriver.exception.HypervisorTimeout: libvirtd itself does not answer.
        :raises kvmdriver.exception.KVMDriverError: libvirt's error, translated.
        """
        raw = self.raw()
        seconds = self._seconds(timeout)
        if ends:
            with self.guests.without_limit(uuid):
                return self.call(
                    lambda: self._on_lane(uuid, function), instance=instance, timeout=seconds
                )
        deadline = time.monotonic() + seconds
        waits = self.guests.enter(agent_of(uuid) if agent else uuid, seconds, instance)
        future = self._send(uuid, function, deadline - time.monotonic())
        future.add_done_callback(lambda _future: self.guests.leave(waits))
        woken = waits.wake.wait(max(0.0, deadline - time.monotonic()))
        if woken and not waits.given_up and raw is self._raw:
            concurrent.futures.wait([future], _MOMENT)
        if future.done() or raw is not self._raw:
            return self._outcome(future, raw, instance)
        self.guests.is_late(waits)
        if not woken:
            self._check(raw)
            raise unresponsive(instance, seconds)
        raise unresponsive(instance)

    def begin(
        self,
        uuid: str,
        function: Callable[[libvirt.virDomain], Any],
        *,
        instance: str | None = None,
    ) -> PendingCall:
        """Start a call of a domain that may take hours."""
        self.raw()
        seen: list[libvirt.virConnect] = []

        def run(domain: libvirt.virDomain) -> Any:
            seen.append(domain.connect())
            return function(domain)

        def translate(error: libvirt.libvirtError) -> Exception:
            if errors.is_connection_lost(error) and seen and seen[0].isAlive():
                # our libvirtd has lost another one, and not we ours
                return exception.HypervisorError(str(error), instance=instance)
            return errors.translate(error, instance)

        return PendingCall(self._send(uuid, run, self._seconds(None)), translate)

    def call_fresh(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the connection, once more on a new one if the old was found dead.

        For calls that change nothing only, since the first try may have been carried out.
        """
        try:
            return self.call(getattr(self.raw(), method), *args, **kwargs)
        except exception.HypervisorUnavailable as error:
            if isinstance(error, exception.HypervisorTimeout):
                raise
            return self.call(getattr(self.raw(), method), *args, **kwargs)

    def raw(self) -> libvirt.virConnect:
        """Return the open libvirt connection.

        One attempt at a time opens it, for all callers. While an attempt has been hanging for some
        seconds, callers get the error at once.

        :raises kvmdriver.exception.HypervisorUnavailable: libvirt cannot be reached.
        """
        raw = self._raw
        if raw is not None:
            return raw
        with self._lock:
            if self._raw is not None:
                return self._raw
            if self._closed:
                raise exception.HypervisorUnavailable("the connection has been closed")
            attempt = self._begin_attempt()
        # The QEMU driver of an embedded connection starts in this process, and takes its time.
        patience = self.call_timeout if self.embedded else min(_OPEN_SECONDS, self.call_timeout)
        attempt.ended.wait(max(0.0, min(self._seconds(patience), patience - attempt.age)))
        if attempt.error is not None:
            raise attempt.error
        raw = self._raw
        if raw is None:
            raise exception.HypervisorTimeout(
                f"{self.uri} takes connections and does not answer",
                field="kvm.uri",
                value=self.uri,
            )
        return raw

    def close(self) -> None:
        """Close the connection, which cannot be opened again. Guests keep running."""
        with self._lock:
            self._closed = True
            raw, self._raw = self._raw, None
        self._lanes.forget()
        if raw is not None:
            try:
                _THREADS.submit(raw.close).result(_MOMENT)
            except (libvirt.libvirtError, concurrent.futures.TimeoutError):
                LOG.warning("%s did not close cleanly", self.uri)
        self.events.stop()

    def _seconds(self, timeout: float | None) -> float:
        seconds = self.call_timeout if timeout is None else timeout
        deadline = _deadline.get()
        return seconds if deadline is None else max(0.0, min(seconds, deadline - time.monotonic()))

    def _outcome(
        self, future: "concurrent.futures.Future[T]", raw: libvirt.virConnect, instance: str | None
    ) -> T:
        """Return the result of a call that has ended, or whose connection has."""
        if not future.done():
            raise exception.HypervisorUnavailable(
                "the connection to libvirt was lost", instance=instance
            )
        try:
            return future.result(0)
        except libvirt.libvirtError as error:
            if errors.is_connection_lost(error):
                self._give_up(raw)
            raise errors.translate(error, instance) from error

    def _check(self, raw: libvirt.virConnect) -> None:
        """Make sure that libvirtd answers, after a call has not come back.

        :raises kvmdriver.exception.HypervisorTimeout: libvirtd does not answer.
        """
        with self._lock:
            probe = self._probe
            if probe is None or probe.raw is not raw:
                # the server's answer, and not one of the client library (remote_protocol.x)
                answer = _THREADS.submit(raw.getLibVersion)
                self._probe = probe = _Probe(raw, answer)
                _THREADS.submit(self._wait_for, probe)
        concurrent.futures.wait([probe.answer], _PROBE_SECONDS)
        self._require_answer(probe)

    def _require_answer(self, probe: "_Probe") -> None:
        if not probe.answer.done() or probe.answer.exception() is not None:
            raise exception.HypervisorTimeout(f"{self.uri} does not answer")

    def _wait_for(self, probe: "_Probe") -> None:
        """Give the connection up if libvirtd stays silent."""
        concurrent.futures.wait([probe.answer], _SILENCE_SECONDS)
        if not probe.answer.done() or probe.answer.exception() is not None:
            self._give_up(probe.raw)
        with self._lock:
            if self._probe is probe:
                self._probe = None

    # Opening

    def _begin_attempt(self) -> _Attempt:
        # the lock is held
        attempt = self._attempt
        if attempt is not None and not attempt.ended.is_set():
            hangs = attempt.age > self.call_timeout
            if not hangs or self._hanging >= _HANGING_ATTEMPTS:
                return attempt
        self._attempt = attempt = _Attempt()
        self._hanging += 1
        _THREADS.submit(self._try, attempt)
        return attempt

    def _try(self, attempt: _Attempt) -> None:
        raw = None
        try:
            LOOP.ensure_running()
            self.events.start()
            raw = self._open_and_register()
        except libvirt.libvirtError as error:
            attempt.error = exception.HypervisorUnavailable(
                f"cannot connect to {self.uri}: {error}", field="kvm.uri", value=self.uri
            )
        except exception.KVMDriverError as error:
            attempt.error = error
        except Exception as error:
            LOG.exception("cannot connect to %s", self.uri)
            attempt.error = exception.HypervisorUnavailable(f"cannot connect: {error}")
        with self._lock:
            self._hanging -= 1
            wanted = raw is not None and attempt is self._attempt and not self._closed
            if wanted:
                self._raw = raw
                self.events.post(Event(None, "connected"))
            attempt.ended.set()
        if raw is not None and not wanted:
            raw.close()

    def _open_and_register(self) -> libvirt.virConnect:
        raw = self._open_lane()
        raw.registerCloseCallback(self._on_close, None)
        self.events.register(raw)
        return raw

    def _open_lane(self) -> libvirt.virConnect:
        raw = libvirt.open(self.uri)
        interval, count = self._keepalive
        if interval and not self.embedded:
            raw.setKeepAlive(interval, count)
        return raw

    def _send(
        self, uuid: str, function: Callable[[libvirt.virDomain], T], seconds: float
    ) -> "concurrent.futures.Future[T]":
        """Begin a call of a domain that may hang."""
        sent = threading.Event()

        def run(domain: libvirt.virDomain) -> T:
            sent.set()
            return function(domain)

        if self.embedded:
            return _THREADS.submit(self._on_lane, uuid, run)
        deadline = time.monotonic() + seconds
        with self._pace.alone(seconds):
            future = _THREADS.submit(self._on_lane, uuid, run)
            future.add_done_callback(lambda _future: sent.set())
            sent.wait(max(0.0, deadline - time.monotonic()))
            concurrent.futures.wait([future], PICKED_UP)
        return future

    def _on_lane(self, uuid: str, function: Callable[[libvirt.virDomain], T]) -> T:
        if self.embedded:
            # no server, and so no limit of requests
            return function(self.raw().lookupByUUIDString(uuid))
        with self._lanes.take() as lane:
            return function(lane.lookupByUUIDString(uuid))

    # Losing

    def _on_close(self, raw: libvirt.virConnect, reason: int, _opaque: Any) -> None:
        # Runs in libvirt's event thread: note it, do nothing else.
        if reason != libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT:
            self._give_up(raw)

    def _give_up(self, raw: libvirt.virConnect) -> None:
        """Use the connection no more. Threads that hang in its calls end when the calls do."""
        with self._lock:
            if raw is not self._raw:
                return
            self._raw = None
            waiting = tuple(self._waiting)
            if not self._closed:
                LOG.warning("the connection to %s is lost", self.uri)
                self.events.post(Event(None, "disconnected"))
        self._lanes.forget()
        self.guests.forget()
        for done in waiting:
            done.set()


def _timeout(what: str, seconds: float, instance: str | None) -> exception.HypervisorTimeout:
    return exception.HypervisorTimeout(
        f"libvirt did not finish {what} within {seconds:g} s",
        instance=instance,
        remedy="raise [kvm] read_timeout or call_timeout if the host is merely slow",
    )
