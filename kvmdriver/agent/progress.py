"""How far long operations are, for those who ask and those who listen."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from kvmdriver.model import ProgressView

_REMEMBERED = 256
_NOTIFY_SECONDS = 1.0


class ProgressTable:
    """The latest progress of the operations of late, by request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: OrderedDict[str, ProgressView] = OrderedDict()

    def get(self, request_id: str) -> ProgressView | None:
        with self._lock:
            return self._rows.get(request_id)

    def put(self, view: ProgressView) -> None:
        with self._lock:
            self._rows[view.request_id] = view
            self._rows.move_to_end(view.request_id)
            while len(self._rows) > _REMEMBERED:
                self._rows.popitem(last=False)


class Reporter:
    """Follows one operation; tells listeners at most once a second and at each new stage."""

    def __init__(
        self, table: ProgressTable, request_id: str, notify: Callable[[ProgressView], None]
    ):
        self._table = table
        self._request_id = request_id
        self._notify = notify
        self._last = 0.0
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int | None, unit: str = "bytes") -> None:
        view = ProgressView.model_validate(
            {
                "request_id": self._request_id,
                "stage": stage,
                "done": done,
                "total": total,
                "unit": unit,
            }
        )
        self._table.put(view)
        now = time.monotonic()
        if stage != self._stage or now - self._last >= _NOTIFY_SECONDS:
            self._stage, self._last = stage, now
            self._notify(view)

    def finish(self) -> None:
        view = self._table.get(self._request_id)
        if view is not None:
            self._table.put(view.changed(finished=True))
