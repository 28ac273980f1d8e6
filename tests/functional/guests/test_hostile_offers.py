"""Offers and descriptions from somebody on the message bus who is no agent."""

import hashlib
import os
import threading
import types
from typing import Any

from kvmdriver import exception
from kvmdriver.model import FileImage, MigrationOffer, MigrationOptions
from kvmdriver.model.evacuation import Description
from kvmdriver.operations import evacuate
from kvmdriver.operations.migrate.offer import make_offer
from kvmdriver.storage import stream
from tests.functional.base import FunctionalTest, guest_file

FOREIGN = b"content of another host"


class Driven(FunctionalTest):
    """The agent's own methods, called by a test."""

    @property
    def driver(self) -> Any:
        return self.agent._server.driver

    def offer(self, kind: str = "cold", **fields: Any) -> MigrationOffer:
        """What another host would offer of an instance like one that was made here."""
        view = self.create(start=False, nics=[], config_drive=None, **fields)
        context = self.driver._context
        domain, record = context.find(view.uuid)
        offer = make_offer(context, domain, record, kind, MigrationOptions())  # type: ignore[arg-type]
        self.api.terminate_instance(view.uuid)
        return offer.changed(source="kvm9")

    def reasons(self, offer: MigrationOffer) -> list[str]:
        with self.assertRaises(exception.MigrationRefused) as caught:
            self.driver.pre_live_migration(offer)
        self.assert_nothing_left()
        for reason in caught.exception.reasons:
            self.assertTrue(reason.get("remedy"), reason)
        return sorted({reason["field"] for reason in caught.exception.reasons})

    def base(self) -> set[str]:
        return set(os.listdir(os.path.join(self.instances, "_base")))


class EncryptedByDefaultTest(Driven):
    def test_without_certificates_nothing_is_received(self) -> None:
        offer = self.offer()
        self.assertEqual(["kvm_migration.tls_directory"], self.reasons(offer))
        clear = offer.changed(native_tls=False)
        self.assertEqual(["kvm_migration.native_tls"], self.reasons(clear))


class HostileOffersTest(Driven):
    # in the clear on this host: what is looked at is what comes, not how
    config = {"kvm_migration": {"native_tls": False, "inbound_address": "127.0.0.1"}}

    def send(self, offer: MigrationOffer, name: str, content: bytes) -> None:
        target = self.driver.migration_receiver(offer.instance.uuid, offer.id)
        path = os.path.join(self.state, "sent")
        with open(path, "wb") as file:
            file.write(content)
        stream.send(path, name, address=target.address, port=target.port, token=target.token)

    def test_an_image_that_is_to_come_cannot_be_sent_before(self) -> None:
        image = {"type": "file", "path": guest_file("guest.qcow2")}
        with open(guest_file("guest.qcow2"), "rb") as file:
            image["checksum"] = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        images = self.driver._context.images
        awaited = os.path.basename(images.locate(FileImage.parse(image), "disk"))
        offer = self.offer("live", disks=[{"image": {**image, "checksum": None}}])
        bogus = offer.instance.disks[0].changed(image=None, size_mib=64)
        disk = offer.disks[0].changed(backing=awaited, backing_size=len(FOREIGN))
        poisoned = offer.changed(
            instance=offer.instance.changed(disks=(bogus,)),
            disks=(disk,),
            files=({"place": "cache", "name": awaited, "size": len(FOREIGN)},),
        )
        before = self.base()
        plan = self.driver.pre_live_migration(poisoned)
        self.assertEqual([awaited], [file.name for file in plan.wanted])
        for content in (FOREIGN + b"more", FOREIGN[:-1]):
            with self.assertRaisesRegex(exception.StorageError, "announced"):
                self.send(poisoned, awaited, content)
        self.send(poisoned, awaited, FOREIGN)
        with self.assertRaisesRegex(exception.StorageError, "come already"):
            self.send(poisoned, awaited, FOREIGN)
        self.assertNotIn(awaited, self.base())
        self.assertEqual(1, len(self.base() - before))
        threads = threading.active_count()
        self.driver.rollback_live_migration_at_destination(poisoned.instance.uuid, poisoned.id)
        self.assertLessEqual(threading.active_count(), threads)
        self.assertEqual(before, self.base(), "what was sent is left")
        # what is created with the image afterwards has its content
        view = self.create(nics=[], disks=[{"image": image}])
        self.wait_for_console(view.name, "GUEST: up")

    def test_offers_that_no_agent_makes(self) -> None:
        offer = self.offer()
        name, cached = self.image_of_another()
        # a directory that is there, by a file of it, and another cached image for the guest
        marker = offer.changed(marker="disk")
        self.assertIn("offer.marker", self.reasons_of(marker))
        taken = offer.changed(instance=offer.instance.changed(uuid=name))
        self.assertIn("uuid", self.reasons_of(taken))
        cd = {"name": "sda", "device": "cdrom", "bus": "sata"}
        cd["file"] = {"path": f"/x/{cached}", "format": "raw"}  # type: ignore[assignment]
        disks = (*offer.instance.to_wire()["disks"], cd)
        unnamed = offer.changed(instance=offer.instance.changed(disks=disks))
        self.assertIn("offer.files", self.reasons_of(unnamed))
        huge = offer.disks[0].changed(length=1 << 44, allocated=1 << 44)
        self.assertIn("kvm_storage.instances_path", self.reasons_of(offer.changed(disks=(huge,))))
        hostdev = offer.definition.replace("<devices>", "<devices><hostdev/>")
        with self.assertRaises(exception.InvalidRequest) as caught:
            self.driver.pre_live_migration(offer.changed(definition=hostdev))
        self.assertEqual("offer.definition", caught.exception.field)
        self.assertIsNone(self.driver._context.hypervisor.find(offer.instance.uuid))

    def image_of_another(self) -> tuple[str, str]:
        """An instance, and the name in the cache of the image that it alone has."""
        before = self.base()
        path = os.path.join(self.state, "other.raw")
        with open(path, "wb") as file:
            file.write(b"secret" * 1024)
        disk = {"image": {"type": "file", "path": path}}
        view = self.create(start=False, nics=[], config_drive=None, disks=[disk])
        return view.uuid, (self.base() - before).pop()

    def reasons_of(self, offer: MigrationOffer) -> list[str | None]:
        """The same as ``reasons``, while other instances are there."""
        with self.assertRaises(exception.MigrationRefused) as caught:
            self.driver.pre_live_migration(offer)
        return [reason["field"] for reason in caught.exception.reasons]

    def test_a_described_instance_gets_no_image_of_others(self) -> None:
        view = self.create(start=False, nics=[])
        context = self.driver._context
        described: Description = context.description(*context.find(view.uuid))
        _other, cached = self.image_of_another()
        self.api.terminate_instance(view.uuid)
        dead: Any = types.SimpleNamespace(host="made-up", answers=lambda: False)
        cd: dict[str, Any] = {"name": "sdb", "device": "cdrom", "bus": "sata"}
        cd["file"] = {"path": f"/x/{cached}", "format": "raw"}
        for image, error in (
            (None, exception.InvalidRequest),
            ({"type": "file", "path": "/nowhere/cd.iso"}, exception.ImageNotFound),
        ):
            disks = (*described.instance.to_wire()["disks"], {**cd, "image": image})
            instance = described.instance.changed(disks=disks)
            definition = described.definition.replace(
                "</disk>", "</disk><disk type='file' device='cdrom'><target dev='sdb'/></disk>", 1
            )
            with self.assertRaises(error):
                evacuate.evacuate(
                    context,
                    view.uuid,
                    dead,
                    fenced=True,
                    rebuild=True,
                    description=described.changed(
                        instance=instance, host="made-up", definition=definition
                    ),
                )
            self.assertIsNone(context.hypervisor.find(view.uuid))
            self.assertFalse(os.path.exists(os.path.join(self.instances, view.uuid)))
