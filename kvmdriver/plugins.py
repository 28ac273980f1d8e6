"""Finding what is installed under a name in one of our extension points (stevedore)."""

import functools
from typing import Any

from stevedore import driver as stevedore_driver
from stevedore import exception as stevedore_exception

from kvmdriver import exception


@functools.cache
def load(namespace: str, name: str, *, field: str) -> Any:
    """Return the class that is installed under a name; looked up once in the life of a process.

    :param namespace: e.g. ``kvmdriver.disk_backends``.
    :param field: the option that gives the name, for the error.
    :raises kvmdriver.exception.ConfigurationError: none is installed.
    """
    try:
        return stevedore_driver.DriverManager(namespace, name).driver
    except stevedore_exception.NoMatches:
        raise exception.ConfigurationError(
            f"nothing is installed as {name!r}",
            field=field,
            value=name,
            remedy=f"correct the name, or install the package that provides it in {namespace}",
        ) from None
