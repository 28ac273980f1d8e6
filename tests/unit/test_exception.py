import inspect
import unittest

from oslo_messaging._drivers import common
from oslo_serialization import jsonutils

from kvmdriver import exception

KINDS = [
    kind
    for _name, kind in inspect.getmembers(exception, inspect.isclass)
    if issubclass(kind, exception.KVMDriverError)
]


class ErrorsTest(unittest.TestCase):
    def test_codes_are_unique_and_stable(self) -> None:
        self.assertEqual(len(KINDS), len({kind.code for kind in KINDS}))
        self.assertEqual("instance_not_found", exception.InstanceNotFound.code)

    def test_every_kind_crosses_the_bus(self) -> None:
        for kind in KINDS:
            error = kind("it broke", field="a.b", value=[1], remedy="mend it", instance="web")
            try:
                raise error
            except exception.KVMDriverError as raised:
                data = common.serialize_remote_exception((kind, raised, raised.__traceback__))
            back = common.deserialize_remote_exception(data, ["kvmdriver.exception"])
            self.assertIsInstance(back, kind)
            self.assertEqual(error.to_dict(), back.to_dict())
            self.assertEqual(error.describe(), back.describe())
            self.assertTrue(jsonutils.dumps(error.to_dict()))

    def test_describe_tells_field_value_and_remedy(self) -> None:
        error = exception.InvalidRequest("too small", field="memory", value=3, remedy="use more")
        self.assertEqual("too small\n  field: memory = 3\n  remedy: use more", error.describe())
        self.assertEqual("too small; field: memory = 3; remedy: use more", str(error))

    def test_long_values_are_cut(self) -> None:
        self.assertEqual(200, len(exception.InvalidRequest("x", value="y" * 5000).value))
