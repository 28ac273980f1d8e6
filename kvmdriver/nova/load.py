"""Finding the class that nova-compute is to run: extension point ``kvmdriver.nova_drivers``."""

from typing import cast

from stevedore import driver as stevedore_driver
from stevedore import exception as stevedore_exception

from kvmdriver import exception

NAMESPACE = "kvmdriver.nova_drivers"


def load(name: str) -> type:
    """The ``nova.virt.driver.ComputeDriver`` that is installed under that name.

    :raises kvmdriver.exception.ConfigurationError: none is.
    """
    try:
        manager: stevedore_driver.DriverManager = stevedore_driver.DriverManager(NAMESPACE, name)
    except stevedore_exception.NoMatches:
        raise exception.ConfigurationError(
            f"there is no compute driver {name!r}",
            field="DEFAULT.compute_driver",
            value=name,
            remedy="install kvmdriver into the Python environment of nova-compute",
        ) from None
    return cast(type, manager.driver)
