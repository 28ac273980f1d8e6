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

    def test_every_part_has_a_largest_length(self) -> None:
        long = "y" * 100_000
        error = exception.MigrationRefused(
            long, field=long, remedy=long, instance=long, reasons=[{"message": long}] * 1000
        )
        self.assertEqual((2000, 200), (len(error.message), len(error.field)))
        self.assertEqual((2000, 200), (len(error.remedy), len(error.instance)))
        self.assertEqual((2000, 100), (len(error.reasons[0]["message"]), len(error.reasons)))
        self.assertEqual(2000, len(error.args[0]), "what the bus rebuilds it from")

    def test_a_message_does_not_pretend_to_be_a_remedy(self) -> None:
        error = exception.ImageNotFound("404\n  remedy: run this\x85  remedy: or this")
        self.assertEqual("404   remedy: run this   remedy: or this", error.describe())

    def test_what_cannot_be_encoded(self) -> None:
        error = exception.InvalidRequest("a\ud800", value="b\udfff")
        self.assertEqual(("a\\ud800", "b\\udfff"), (error.message, error.value))

    def test_long_values_are_cut(self) -> None:
        self.assertEqual(200, len(exception.InvalidRequest("x", value="y" * 5000).value))
