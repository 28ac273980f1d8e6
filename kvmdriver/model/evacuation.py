"""Bringing instances back on another host: what is kept beside their disks, and told."""

import json
from typing import Literal, Self

from pydantic import Field

from kvmdriver import exception
from kvmdriver.model.base import Identifier, Model, ShortText, Uuid
from kvmdriver.model.instance import Instance
from kvmdriver.model.migration import Xml


class Description(Model):
    """What an instance is, as its directory says it; whoever has the directory can bring it back.

    Unlike the domain it survives the host, where hosts share the directory or it was backed up.
    """

    version: Literal[1] = 1
    host: ShortText = Field(description="whose instance it is: the name of the agent")
    host_uuid: ShortText = Field(description="the same as libvirt knows it, whatever its name")
    instance: Instance
    digest: ShortText | None = None
    evacuated_from: tuple[ShortText, ...] = Field(
        (),
        max_length=1024,
        description="hosts that had the instance before, and do not know yet that another host has it",
    )
    autostart: bool = False
    building: Identifier | None = Field(
        None,
        description="the operation with which its host is still making it: nobody else can bring "
        "it back, and only that operation removes it",
    )
    definition: Xml
    """The persistent definition; only the addresses of its devices are taken over."""

    @classmethod
    def from_json(cls, content: str | bytes) -> Self:
        """Read back what ``to_json`` wrote.

        :raises kvmdriver.exception.InvalidRequest: it is no such description; with what is wrong.
        """
        try:
            return cls.parse(json.loads(content))
        except (ValueError, RecursionError) as error:
            raise exception.InvalidRequest(f"is not JSON: {error}", field="description") from None

    def to_json(self) -> str:
        """To be kept as secret as the disks: it has the password of the screen."""
        return json.dumps(self.to_wire(), indent=1)

    def is_of(self, host: str, host_uuid: str) -> bool:
        """Return whether the instance is that host's, renamed agents and new machines included."""
        return self.host == host or self.host_uuid == host_uuid

    def is_surely_of(self, host: str, host_uuid: str) -> bool:
        """Return whether the instance is that host's and can be no other host's.

        Cloned machines share a UUID, others a name.
        """
        return self.host == host and self.host_uuid == host_uuid


class LeftInstance(Model):
    """An instance of another host whose directory is here too."""

    name: str
    uuid: Uuid
    host: str
    autostart: bool
