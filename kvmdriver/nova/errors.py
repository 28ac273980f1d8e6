"""From the driver's errors to nova's, which nova's manager and API handle."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from nova import exception as nova_exception

from kvmdriver import exception

F = TypeVar("F", bound=Callable[..., Any])


def to_nova(error: exception.KVMDriverError) -> Exception:
    """Return nova's error for one of ours; the message keeps field, value and remedy."""
    text = str(error)
    instance = error.instance or ""
    if isinstance(error, exception.InstanceNotFound):
        return nova_exception.InstanceNotFound(instance_id=instance)
    if isinstance(error, exception.ImageUnacceptable):
        return nova_exception.ImageUnacceptable(image_id=error.value or "?", reason=text)
    if isinstance(error, exception.ImageNotFound):
        return nova_exception.ImageNotFound(image_id=error.value or "?")
    if isinstance(error, exception.HypervisorUnavailable):
        return nova_exception.HypervisorUnavailable(text)
    if isinstance(error, exception.InsufficientResources):
        return nova_exception.ComputeResourcesUnavailable(reason=text)
    if isinstance(error, exception.InstanceExists):
        return nova_exception.InstanceExists(name=instance)
    if isinstance(error, exception.DeviceNotFound):
        return nova_exception.DeviceNotFound(device=error.value or text)
    if isinstance(error, exception.ConfigurationError):
        return nova_exception.InvalidConfiguration(text)
    if isinstance(error, exception.InvalidRequest | exception.Unsupported):
        return nova_exception.Invalid(text)
    return nova_exception.InternalError(text)


def _translated(method: F) -> F:
    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except exception.KVMDriverError as error:
            raise to_nova(error) from error

    return wrapper  # type: ignore[return-value]


def translate_errors(cls: type) -> type:
    """Decorate a class so that its public methods raise nova's errors."""
    for name, value in list(vars(cls).items()):
        if callable(value) and not isinstance(value, type) and not name.startswith("_"):
            setattr(cls, name, _translated(value))
    return cls
