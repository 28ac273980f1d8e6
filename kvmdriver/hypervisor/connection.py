"""The connection to libvirt: opened when needed, reopened when lost, every call with a deadline."""

import concurrent.futures
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from kvmdriver import exception
from kvmdriver.hypervisor import errors
from kvmdriver.hypervisor.events import LOOP, Event, EventBus

LOG = logging.getLogger(__name__)

T = TypeVar("T")

_POOL_THREADS = 32


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
        """Whether the call has ended, at the latest after so many seconds."""
        concurrent.futures.wait([self._future], seconds)
        return self._future.done()

    def result(self) -> Any:
        """What the call has given; it must have ended.

        :raises kvmdriver.exception.KVMDriverError: libvirt's error, translated.
        """
        try:
            return self._future.result(0)
        except concurrent.futures.CancelledError:
            raise exception.HypervisorUnavailable("the connection to libvirt was lost") from None
        except libvirt.libvirtError as error:
            raise self._translate(error) from error


class Connection:
    """One libvirt URI.

    libvirt calls run on a pool of our own and are waited for with a deadline: a libvirtd that
    hangs costs the caller an error, not its thread. After a lost or timed-out connection the next
    call opens a new one and registers for events again (libvirt forgets registrations).
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
        self._keepalive = (keepalive_interval, keepalive_count)
        self._lock = threading.Lock()
        self._raw: libvirt.virConnect | None = None
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._closed = False

    @property
    def embedded(self) -> bool:
        """Whether the QEMU driver runs in this process (https://libvirt.org/drvqemu.html)."""
        return "/embed" in self.uri

    @property
    def alive(self) -> bool:
        """Whether there is a connection that has not been noticed to be lost."""
        return self._raw is not None

    def call(
        self,
        function: Callable[..., T],
        *args: Any,
        instance: str | None = None,
        timeout: float | None = None,
    ) -> T:
        """Run a libvirt call on the pool and wait for it.

        :param timeout: seconds; the configured call timeout when None.
        :raises kvmdriver.exception.HypervisorTimeout: it did not return in time.
        :raises kvmdriver.exception.KVMDriverError: libvirt's error, translated.
        """
        pool, raw = self._pool, self._raw
        if pool is None:
            self.raw()
            pool, raw = self._pool, self._raw
            assert pool is not None  # noqa: S101 raw() has made it
        seconds = self.call_timeout if timeout is None else timeout
        try:
            return pool.submit(function, *args).result(seconds)
        except concurrent.futures.TimeoutError:
            self._give_up(raw)
            raise exception.HypervisorTimeout(
                f"libvirt did not finish {getattr(function, '__name__', 'a call')} "
                f"within {seconds:g} s",
                instance=instance,
                remedy="check libvirtd; raise [kvm] call_timeout if the host is merely slow",
            ) from None
        except RuntimeError as error:
            # the pool was shut down between our look at it and our use of it
            if "schedule new futures" not in str(error):
                raise
            raise exception.HypervisorUnavailable(
                "the connection to libvirt was lost", instance=instance
            ) from None
        except libvirt.libvirtError as error:
            if errors.is_connection_lost(error):
                self._give_up(raw)
            raise errors.translate(error, instance) from error

    def begin(
        self, function: Callable[..., Any], *args: Any, instance: str | None = None
    ) -> PendingCall:
        """Start a call that may take hours, in a thread of its own."""
        raw = self.raw()
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def translate(error: libvirt.libvirtError) -> Exception:
            if not errors.is_connection_lost(error):
                return errors.translate(error, instance)
            if raw.isAlive():
                # our libvirtd has lost another one, and not we ours
                return exception.HypervisorError(str(error), instance=instance)
            self._give_up(raw)
            return errors.translate(error, instance)

        def run() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as error:  # noqa: B036 it is the waiter's
                future.set_exception(error)

        threading.Thread(target=run, name="libvirt-long-call", daemon=True).start()
        return PendingCall(future, translate)

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
        """The open libvirt connection.

        :raises kvmdriver.exception.HypervisorUnavailable: libvirt cannot be reached.
        """
        raw = self._raw
        if raw is not None:
            return raw
        with self._lock:
            if self._raw is None:
                if self._closed:
                    raise exception.HypervisorUnavailable("the connection has been closed")
                self._raw = self._open()
                self.events.post(Event(None, "connected"))
            return self._raw

    def close(self) -> None:
        """Close the connection for good. Guests keep running."""
        with self._lock:
            self._closed = True
            raw, self._raw = self._raw, None
            pool, self._pool = self._pool, None
        if pool is not None and raw is not None:
            try:
                pool.submit(raw.close).result(5)
            except (libvirt.libvirtError, concurrent.futures.TimeoutError):
                LOG.warning("%s did not close cleanly", self.uri)
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        self.events.stop()

    def _open(self) -> libvirt.virConnect:
        LOOP.ensure_running()
        self.events.start()
        pool = concurrent.futures.ThreadPoolExecutor(_POOL_THREADS, "libvirt-call")
        try:
            raw = pool.submit(self._open_and_register).result(self.call_timeout)
        except concurrent.futures.TimeoutError:
            pool.shutdown(wait=False)
            raise exception.HypervisorTimeout(
                f"{self.uri} did not answer within {self.call_timeout:g} s"
            ) from None
        except libvirt.libvirtError as error:
            pool.shutdown(wait=False)
            raise exception.HypervisorUnavailable(
                f"cannot connect to {self.uri}: {error}", field="kvm.uri", value=self.uri
            ) from error
        self._pool = pool
        return raw

    def _open_and_register(self) -> libvirt.virConnect:
        raw = libvirt.open(self.uri)
        raw.registerCloseCallback(self._on_close, None)
        interval, count = self._keepalive
        if interval and not self.embedded:
            raw.setKeepAlive(interval, count)
        self.events.register(raw)
        return raw

    def _on_close(self, raw: libvirt.virConnect, reason: int, _opaque: Any) -> None:
        # Runs in libvirt's event thread: note it, do nothing else.
        if reason != libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT:
            self._forget()

    def _give_up(self, raw: libvirt.virConnect | None) -> None:
        if raw is not None and raw is self._raw:
            self._forget()

    def _forget(self) -> None:
        # No lock: called from the event thread. Worker threads that hang in the old pool are
        # left to end by themselves.
        raw, self._raw = self._raw, None
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)
        if raw is not None and not self._closed:
            LOG.warning("the connection to %s is lost", self.uri)
            self.events.post(Event(None, "disconnected"))
