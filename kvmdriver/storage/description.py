"""The file in an instance's directory that says what the instance is, and whose."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TextIO

from kvmdriver import exception
from kvmdriver.model.evacuation import Description
from kvmdriver.storage import private
from kvmdriver.storage.copy import remove_file, write_error

NAME = "instance.json"
_CLAIM = "instance.json.claim"
# what a definition may take (model.migration.Xml), and as much for the instance
_MAX_BYTES = 8 * 1024 * 1024


def read(directory: str) -> Description | None:
    """Return what a directory says; None where it says nothing.

    :raises kvmdriver.exception.StorageError: the file cannot be read or is not such a description.
    """
    path = os.path.join(directory, NAME)
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise exception.StorageError(
            f"cannot be read: {error.strerror}",
            field="description",
            value=path,
            remedy=private.how_to_take_over(os.path.dirname(directory)),
        ) from None
    if len(content) > _MAX_BYTES:
        raise _no_description(path, "it is too long")
    try:
        return Description.from_json(content)
    except exception.InvalidRequest as error:
        raise _no_description(path, f"{error.field}: {error.message}") from None


def write(directory: str, description: Description) -> None:
    """Replace what a directory says, at one moment.

    :raises kvmdriver.exception.StorageError: the file system refuses.
    """
    path = os.path.join(directory, NAME)
    part = f"{path}.part"
    try:
        remove_file(part)  # a killed process may have left it
        with os.fdopen(private.create(part, private.SECRET_MODE), "w") as file:
            _write(file, description)
        os.rename(part, path)
    except OSError as error:
        remove_file(part)
        raise write_error(error, path) from None


def _write(file: TextIO, description: Description) -> None:
    file.write(description.to_json())
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def first(directory: str, description: Description) -> Iterator[None]:
    """Describe an instance in a directory that nobody knows yet, and hold the file locked.

    :raises OSError: the file system refuses.
    """
    path = os.path.join(directory, NAME)
    with os.fdopen(private.create(path, private.SECRET_MODE), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _write(file, description)
        yield


@contextlib.contextmanager
def claim(directory: str, host: str) -> Iterator[None]:
    """Be the only one of all hosts that takes an instance over.

    :raises kvmdriver.exception.InstanceBusy: another host holds the claim.
    """
    path = os.path.join(directory, _CLAIM)
    try:
        with os.fdopen(private.create(path, private.SECRET_MODE), "w") as file:
            file.write(host)
    except FileExistsError:
        with open(path) as file:
            other = file.read(256)
        if other != host:  # of its own, that is what a killed agent has left
            raise exception.InstanceBusy(
                f"{other or 'another host'} is bringing it back",
                field="host",
                value=other,
                remedy=f"wait for it; if that has died as well, remove {path}",
            ) from None
    except OSError as error:
        raise write_error(error, path) from None
    try:
        yield
    finally:
        remove_file(path)


def _no_description(path: str, why: str) -> exception.StorageError:
    return exception.StorageError(
        f"is not the description of an instance: {why}",
        field="description",
        value=path,
        remedy="take the file from a backup, or one that the agent wrote",
    )
