"""What the guest agent (qemu-guest-agent) does for nova."""

from nova import exception as nova_exception
from nova.objects.image_meta import ImageMeta
from nova.objects.instance import Instance as NovaInstance

from kvmdriver import exception
from kvmdriver.guest.agent import agent_connected
from kvmdriver.hypervisor.domain import Domain
from kvmdriver.nova import translate
from kvmdriver.nova.node import Node

# Less than [DEFAULT] rpc_response_timeout (60 s), within which nova's API wants its answer.
AGENT_SECONDS = 30


def _require(image_meta: ImageMeta) -> None:
    """Require that the image asks for the agent.

    :raises nova.exception.QemuGuestAgentNotEnabled: the image does not.
    """
    if not translate.wants_guest_agent(image_meta):
        raise nova_exception.QemuGuestAgentNotEnabled()


def _domain(node: Node, instance: NovaInstance) -> Domain:
    """Return the domain once its agent answers: a guest that has just started needs a moment."""
    domain = node.domain(instance)
    with node.hypervisor.events.expect(domain.uuid, "agent-connected", "stopped") as connected:
        if domain.is_active() and not agent_connected(domain.xml()):
            connected.wait(AGENT_SECONDS)
    return domain


def set_admin_password(node: Node, instance: NovaInstance, password: str) -> None:
    """Set the password of the guest's administrator.

    :raises nova.exception.SetAdminPasswdNotSupported: the agent cannot.
    """
    image_meta = instance.image_meta
    _require(image_meta)
    windows = image_meta.properties.get("os_type") == "windows" or instance.os_type == "windows"
    user = image_meta.properties.get("os_admin_user") or ("Administrator" if windows else "root")
    try:
        _domain(node, instance).set_user_password(user, password)
    except exception.Unsupported as error:
        raise nova_exception.SetAdminPasswdNotSupported() from error
    except exception.OperationTimeout as error:
        raise nova_exception.QemuGuestAgentNotEnabled() from error
    except exception.HypervisorError as error:
        raise nova_exception.InstancePasswordSetFailed(
            instance=instance.uuid, reason=str(error)
        ) from error


def quiesce(node: Node, instance: NovaInstance, image_meta: ImageMeta, *, freeze: bool) -> None:
    """Freeze the guest's file systems, or thaw them.

    :raises nova.exception.InstanceQuiesceNotSupported: the agent does not do it.
    """
    _require(image_meta)
    domain = _domain(node, instance)
    try:
        if freeze:
            domain.freeze()
        else:
            domain.thaw()
    except exception.KVMDriverError as error:
        raise nova_exception.InstanceQuiesceNotSupported(
            instance_id=instance.uuid, reason=str(error)
        ) from error
