"""Sampling a migration that libvirt carries out, and acting on samples and wishes."""

import contextlib
import dataclasses
import logging
import time

from kvmdriver import exception
from kvmdriver.guest.migration.converge import Convergence, Decision, Sample
from kvmdriver.guest.migration.table import MigrationTable, Wishes
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.hypervisor.migration import JobProgress
from kvmdriver.model import MigrationView
from kvmdriver.progress import Progress

LOG = logging.getLogger(__name__)

# Seconds between two samples. The end of a migration does not wait for a sample: libvirt's call returns.
_LOOK = 0.5
# Seconds in which nothing is sent, after which a migration is given up, and again as many after
# which libvirt is not waited for any more. Its own keepalive notices a dead host before that.
_STUCK = 30.0


class Watch:
    """Publishes the progress of a migration, makes it converge, and carries out wishes."""

    pause = _LOOK

    def __init__(
        self,
        table: MigrationTable,
        domain: Domain,
        view: MigrationView,
        wishes: Wishes,
        progress: Progress,
    ):
        self._table = table
        self._domain = domain
        self._view = view
        self._wishes = wishes
        self._progress = progress
        self._policy = wishes.policy
        self._convergence = Convergence(self._policy)
        self._started = False
        self._moved = time.monotonic()
        self._given_up = False
        self._post_copy = False
        self.seen: JobProgress | None = None
        """What the last look has shown."""

    def look(self) -> None:
        """Take one sample. A libvirtd that does not answer does not end the migration."""
        try:
            seen = self._domain.migration_progress()
            if seen is None:
                return
            if self._post_copy:
                seen = dataclasses.replace(seen, post_copy=True)
            if _amounts(seen) != _amounts(self.seen):
                self._moved = time.monotonic()
            self.seen = seen
            if not self._started:
                self._started = True
                self._domain.set_migration_downtime(self._policy.downtime)
            self._take_wishes(seen)
            decision = self._convergence.observe(_sample(seen))
            self._show(seen)
            if decision is not None:
                self._carry_out(decision)
        except (exception.InvalidState, exception.InstanceNotFound):
            return  # it has just ended; a guest that has left is not defined here any more
        except exception.KVMDriverError as error:
            LOG.warning("%s: cannot look at the migration: %s", self._domain.name, error)

    def end_if_stuck(self) -> None:
        """Cancel a migration that makes no progress, and stop waiting for libvirt in the end.

        :raises kvmdriver.exception.MigrationFailed: libvirt does not even give it up.
        """
        still = time.monotonic() - self._moved
        if self.seen is None or self.seen.post_copy or still < _STUCK:
            return  # the destination still allocates memory, which takes as long as it takes
        if not self._given_up:
            self._given_up = True
            self._note(f"abort: nothing has been sent for {_STUCK:.0f} s")
            for give_up in (self._domain.abort_job, self._domain.wake_cancelled_migration):
                with contextlib.suppress(exception.KVMDriverError):
                    give_up()
        elif still > 2 * _STUCK:
            raise exception.MigrationFailed(
                "libvirt neither moves the guest nor gives it up",
                instance=self._domain.name,
                remedy="restart libvirtd, on both hosts; guests keep running",
            )

    def _take_wishes(self, seen: JobProgress) -> None:
        wishes = self._wishes
        if wishes.abort:
            wishes.abort = False
            self._domain.abort_job()
            self._note("aborted by an operator")
        elif wishes.force:
            wishes.force = False
            if self._policy.post_copy and not seen.post_copy:
                self._carry_out(Decision("post-copy", "an operator wants it to end"))
            else:
                self._carry_out(Decision("pause", "an operator wants it to end"))
        new = wishes.policy
        if new != self._policy:
            if new.bandwidth != self._policy.bandwidth:
                self._domain.set_migration_bandwidth(new.bandwidth)
                self._note(f"bandwidth is {new.bandwidth or 'unlimited'} MiB/s now")
            if new.downtime != self._policy.downtime:
                self._domain.set_migration_downtime(new.downtime)
                self._convergence.downtime = new.downtime
                self._note(f"downtime is {new.downtime} ms now")
            self._policy = self._convergence.policy = new

    def _carry_out(self, decision: Decision) -> None:
        self._note(f"{decision.action}: {decision.reason}")
        if decision.action == "downtime":
            self._domain.set_migration_downtime(decision.downtime)
        elif decision.action == "post-copy":
            self._domain.start_post_copy()
            # libvirt counts only pages that the guest has asked for, which may take a while
            self._post_copy = True
            self._put(post_copy=True)
        elif decision.action == "pause":
            self._domain.pause()
        else:
            self._domain.abort_job()

    def _note(self, text: str) -> None:
        LOG.info("%s: migration to %s: %s", self._domain.name, self._view.destination, text)
        self._put(decisions=(*self._view.decisions, text)[-50:])

    def _show(self, seen: JobProgress) -> None:
        found = self._convergence
        handed_over = self._domain.presence() in ("handed-over", "post-copy")
        self._put(
            state="switch-over" if handed_over else "run",
            elapsed=round(seen.elapsed / 1000, 1),
            memory_total=_round(seen.memory_total),
            memory_left=_round(seen.memory_left),
            disk_total=_round(seen.disk_total),
            disk_left=_round(seen.disk_left),
            rate=_round(found.rate),
            dirty_rate=_round(seen.dirty_rate),
            iteration=seen.iteration,
            throttle=seen.throttle,
            post_copy=seen.post_copy or self._domain.presence() == "post-copy",
            downtime_limit=found.downtime,
            expected_downtime=found.expected_downtime,
            estimate=_round(found.estimate),
        )
        total = seen.memory_total + seen.disk_total
        left = seen.memory_left + seen.disk_left
        mib = 1024 * 1024
        self._progress("migrate", int((total - left) * mib), int(total * mib) or None)

    def _put(self, **fields: object) -> None:
        self._view = self._view.changed(**fields)
        self._table.put(self._view)


def _amounts(seen: JobProgress | None) -> tuple[float, ...]:
    return () if seen is None else (seen.memory_sent, seen.memory_left, seen.disk_left)


def _sample(seen: JobProgress) -> Sample:
    return Sample(
        seconds=seen.elapsed / 1000,
        sent=seen.memory_sent + seen.disk_total - seen.disk_left,
        left=seen.memory_left,
        dirty_rate=seen.dirty_rate,
        iteration=seen.iteration,
        disk_left=seen.disk_left,
        disk_total=seen.disk_total,
        throttle=seen.throttle,
        post_copy=seen.post_copy,
    )


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
