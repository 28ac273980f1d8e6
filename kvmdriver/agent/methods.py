"""What the agent's RPC methods are made of: JSON in, the driver's work, JSON out."""

import concurrent.futures
import contextlib
import functools
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import oslo_messaging as messaging
from oslo_utils import uuidutils

from kvmdriver import exception
from kvmdriver.agent import requests
from kvmdriver.agent.notifications import Notifier
from kvmdriver.agent.progress import ProgressTable, Reporter
from kvmdriver.agent.transport import Lane
from kvmdriver.driver import KVMDriver
from kvmdriver.hypervisor.record import DoneRequest
from kvmdriver.model import Model, ProgressView

LOG = logging.getLogger(__name__)

_REMEMBERED_REQUESTS = 1024
# A client sends a request again when it has lost its agent or its broker for a while.
_WAITING_FOR_ONE = 2

Method = Callable[..., Any]


class Call:
    """One request being carried out.

    ``request_id`` is bound to what was asked (``hypervisor.record.DoneRequest``): instances remember
    both.
    """

    def __init__(self, request_id: str, progress: Reporter):
        self.request_id = request_id
        self.progress = progress


def reads(request_type: type[requests.Request]) -> Callable[[Method], Method]:
    """Mark an RPC method that changes nothing, and is answered whatever else the agent does."""
    return _answers(request_type, "reads")


def peers(request_type: type[requests.Request]) -> Callable[[Method], Method]:
    """Mark an RPC method for agents of other hosts, which wait for it while they change something.

    A second delivery of the same message must do no harm: nothing here tells it from the first.
    """
    return _answers(request_type, "peers")


def _answers(request_type: type[requests.Request], lane: Lane) -> Callable[[Method], Method]:
    def decorate(function: Method) -> Method:
        @functools.wraps(function)
        def method(self: "Methods", context: Any, /, **payload: Any) -> Any:
            with _typed_errors(function.__name__):
                return _plain(function(self, request_type.parse(payload)))

        _describe(method, lane, request_type)
        return method

    return decorate


def changes(request_type: type[requests.Request], event: str) -> Callable[[Method], Method]:
    """Mark an RPC method that changes an instance.

    It is announced as ``instance.<event>.start`` and ``.end`` or ``.error``, its progress can be
    followed, and a redelivered request gets the answer of the first one. While the first one is
    worked on, few wait for it with a thread each; the others are told so at once. The ID of a
    request must not come with anything else, be it another method.
    """

    def decorate(function: Method) -> Method:
        @functools.wraps(function)
        def method(self: "Methods", context: Any, /, **payload: Any) -> Any:
            with _typed_errors(function.__name__):
                request = request_type.parse(payload)
                request_id = request.request_id or uuidutils.generate_uuid()
                return self._once(
                    request_id,
                    request.digest(function.__name__, secrets=True),
                    lambda: self._carry_out(event, request, request_id, function),
                )

        _describe(method, "changes", request_type)
        return method

    return decorate


def _describe(method: Method, lane: Lane, request_type: type[requests.Request]) -> None:
    """Note with a method what the server and the documentation ask about it."""
    method.lane = lane  # type: ignore[attr-defined]
    method.request_type = request_type  # type: ignore[attr-defined]


@contextlib.contextmanager
def _typed_errors(method: str) -> Iterator[None]:
    """Errors leave as ours, marked as expected so that oslo.messaging does not log them as bugs."""
    try:
        try:
            yield
        except exception.KVMDriverError:
            raise
        except Exception as error:
            LOG.exception("%s failed", method)
            raise exception.KVMDriverError(
                f"{method} failed: {type(error).__name__}",
                remedy="the agent's log has the details",
            ) from None
    except exception.KVMDriverError:
        # takes the error under way with it
        raise messaging.ExpectedException() from None


def _plain(answer: Any) -> Any:
    if isinstance(answer, Model):
        return answer.model_dump(mode="json")
    if isinstance(answer, list | tuple):
        return [_plain(item) for item in answer]
    return answer


class _Seen:
    """A request that was delivered before, and its answer as soon as there is one.

    An agent remembers a thousand of these. So the answer is kept as text, which takes a tenth of the
    memory.
    """

    __slots__ = ("_text", "_under_way", "_waiting", "digest")

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self._under_way: concurrent.futures.Future[None] | None = concurrent.futures.Future()
        self._text = ""
        self._waiting = 0

    def require_place(self) -> None:
        """Take a place among those who wait for the answer.

        :raises kvmdriver.exception.RequestUnderWay: there is none.
        """
        if self._under_way is None:
            return
        if self._waiting >= _WAITING_FOR_ONE:
            raise exception.RequestUnderWay(
                f"the request is being worked on, {self._waiting} others wait for its answer"
            )
        self._waiting += 1

    def end(self, answer: Any) -> None:
        """Give the answer to those who wait, and to those who come."""
        self._text = json.dumps(answer)
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Give the error to those who wait. The request is not remembered."""
        if self._under_way is not None:
            self._under_way.set_exception(error)

    def answer(self) -> Any:
        """Wait for the answer, or raise the error.

        :returns: a copy.
        """
        under_way = self._under_way
        if under_way is not None:
            under_way.result()
        return json.loads(self._text)


class Methods:
    """Base of RPC methods: requests are carried out once, announced, and followed."""

    def __init__(self, driver: KVMDriver, notifier: Notifier):
        self._driver = driver
        self._notifier = notifier
        self._progress = ProgressTable()
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    # What the decorators use; oslo.messaging lets nobody call names with an underscore.

    def _once(self, key: str, digest: str, work: Callable[[], Any]) -> Any:
        """Do ``work``, or wait for the thread that does it already and share the answer.

        :param digest: that of what is asked for.
        :raises kvmdriver.exception.RequestConflict: the key came with something else before.
        """
        with self._lock:
            known = self._seen.get(key)
            if known is None:
                mine = self._seen[key] = _Seen(digest)
                self._forget_old()
            elif known.digest != digest:
                raise exception.RequestConflict.of(key)
            else:
                known.require_place()
        if known is not None:
            return known.answer()
        try:
            answer = work()
            mine.end(answer)
        except BaseException as error:
            # a failed request may be tried again: conditions change
            with self._lock:
                self._seen.pop(key, None)
            mine.fail(error)
            raise
        return answer

    def _forget_old(self) -> None:
        while len(self._seen) > _REMEMBERED_REQUESTS:
            self._seen.popitem(last=False)

    def _carry_out(
        self, event: str, request: requests.Request, request_id: str, function: Method
    ) -> Any:
        """Run a method, with notifications around it."""
        payload = {"request_id": request_id, "instance": _name_of(request)}

        def notify(view: ProgressView) -> None:
            self._notifier.info(
                f"instance.{event}.progress", {**payload, **view.model_dump(mode="json")}
            )

        reporter = Reporter(self._progress, request_id, notify)
        self._notifier.info(f"instance.{event}.start", payload)
        try:
            digest = request.digest(function.__name__, secrets=False)
            bound = DoneRequest(id=request_id, digest=digest).reference
            answer = _plain(function(self, request, Call(bound, reporter)))
        except Exception as error:
            known = isinstance(error, exception.KVMDriverError)
            details = error.to_dict() if known else {"code": "internal_error"}  # type: ignore[attr-defined]
            self._notifier.error(f"instance.{event}.error", {**payload, "error": details})
            raise
        finally:
            reporter.finish()
        self._notifier.info(f"instance.{event}.end", payload)
        return answer


def _name_of(request: requests.Request) -> Any:
    instance = getattr(request, "instance", None)
    return instance if isinstance(instance, str) else getattr(instance, "uuid", None)
