"""The wheel puts the shim where nova looks for drivers."""

import pathlib
import subprocess
import sys
import tempfile
import unittest
import zipfile

TOP = pathlib.Path(__file__).parents[2]


class PackagingTest(unittest.TestCase):
    def test_wheel(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            source = f"{directory}/source"
            # a copy: a build leaves files behind in the tree
            subprocess.run(["git", "clone", "-q", str(TOP), source], check=True)
            subprocess.run(
                [
                    sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
                    "--wheel-dir", directory, source,
                ],
                check=True, capture_output=True,
            )  # fmt: skip
            wheel = next(pathlib.Path(directory).glob("kvmdriver-*.whl"))
            names = zipfile.ZipFile(wheel).namelist()
        self.assertIn("nova/virt/kvmdriver.py", names)
        self.assertIn("kvmdriver/nova/driver.py", names)
        # nova's own files must not be overwritten
        self.assertEqual(["nova/virt/kvmdriver.py"], [n for n in names if n.startswith("nova/")])

    def test_nova_finds_it(self) -> None:
        import nova.virt.kvmdriver as shim
        from nova.virt import driver

        self.assertTrue(issubclass(shim.KVMDriver, driver.ComputeDriver))
