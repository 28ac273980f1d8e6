"""Who has the guest when a migration is over."""

import itertools
import typing
import unittest

from kvmdriver.guest.migration.verdict import GRACE, decide
from kvmdriver.hypervisor.migration import Presence
from kvmdriver.model.migration import DestinationState

HERE: tuple[Presence, ...] = typing.get_args(Presence)
THERE: tuple[DestinationState, ...] = typing.get_args(DestinationState)


class OutcomeTest(unittest.TestCase):
    def test_a_guest_that_is_there_is_never_kept_here(self) -> None:
        for here in HERE:
            self.assertEqual("finish", decide(here, "here"), here)

    def test_a_guest_that_runs_here_is_kept_unless_it_runs_there(self) -> None:
        for there in THERE:
            if there != "here":
                self.assertEqual("roll-back", decide("on", there), there)

    def test_nothing_is_decided_while_libvirt_is_at_it(self) -> None:
        for here, there in itertools.product(HERE, (*THERE, None)):
            self.assertEqual("wait", decide(here, there, moving=True))

    def test_a_destination_that_cannot_be_asked_is_waited_for(self) -> None:
        for here in HERE:
            self.assertEqual("wait", decide(here, None), here)

    def test_before_the_switch_over_a_running_guest_needs_no_answer(self) -> None:
        self.assertEqual("roll-back", decide("on", None, before_switch=True))
        self.assertEqual("wait", decide("handed-over", None, before_switch=True))

    def test_a_paused_guest_goes_on_when_the_destination_is_gone(self) -> None:
        for there in ("none", "prepared"):
            self.assertEqual("roll-back", decide("handed-over", there))

    def test_a_switch_over_under_way_gets_a_while(self) -> None:
        for here in ("handed-over", "off-migrated", "post-copy"):
            self.assertEqual("wait", decide(here, "incoming", waited=GRACE - 1))
            self.assertNotEqual("wait", decide(here, "incoming", waited=GRACE))

    def test_after_post_copy_the_disks_there_are_the_newer_ones(self) -> None:
        for there in ("lost", "prepared", "none"):
            self.assertEqual("finish", decide("post-copy", there))
            self.assertEqual("finish", decide("lost", there))

    def test_a_guest_that_died_here_before_it_left_stays_here(self) -> None:
        for there in ("none", "prepared", "incoming"):
            self.assertEqual("roll-back", decide("crashed", there))
            self.assertEqual("roll-back", decide("off", there))

    def test_every_case_ends_once_it_has_been_waited_for(self) -> None:
        for here, there in itertools.product(HERE, THERE):
            self.assertIn(decide(here, there), ("finish", "roll-back"))
