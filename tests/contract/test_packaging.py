"""What the wheel holds, and how Python and nova find it where it is installed."""

import pathlib
import subprocess
import sys
import sysconfig
import tempfile
import unittest
import venv
import zipfile

import nova

TOP = pathlib.Path(__file__).parents[2]
SHIM = "nova.virt.kvmdriver"
# as nova.virt.driver.load_compute_driver does
LOAD = """
from oslo_utils import importutils
from nova.virt import driver
found = importutils.import_class("nova.virt.kvmdriver.KVMDriver")
assert issubclass(found, driver.ComputeDriver)
print(__import__("sys").modules["nova.virt.kvmdriver"].__file__)
"""


class WheelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.directory = pathlib.Path(directory.name)
        source = cls.directory / "source"
        # a copy: a build leaves files behind in the tree
        subprocess.run(["git", "clone", "-q", str(TOP), str(source)], check=True)
        subprocess.run(
            [
                sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
                "--wheel-dir", directory.name, str(source),
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        cls.wheel = next(cls.directory.glob("kvmdriver-*.whl"))
        venv.create(cls.directory / "venv", with_pip=False)
        cls.python = cls.directory / "venv/bin/python"
        cls.site = next(cls.directory.glob("venv/lib/python3*/site-packages"))
        subprocess.run(
            [
                sys.executable, "-m", "pip", "--python", str(cls.python), "install", "-q",
                "--no-deps", "--no-index", str(cls.wheel),
            ],
            check=True, capture_output=True,
        )  # fmt: skip

    def run_python(self, code: str, path: str = "") -> subprocess.CompletedProcess[str]:
        """Run code where nothing but the wheel is installed, and what is in ``path``."""
        return subprocess.run(
            [self.python, "-c", code],
            env={"PYTHONPATH": path, "PYTHONWARNINGS": "ignore", "PATH": "/usr/bin:/bin"},
            # not the top of a checkout, whose nova/ would be found
            cwd=self.directory, capture_output=True, text=True,
        )  # fmt: skip

    def nova_without_shim(self) -> pathlib.Path:
        """A directory with the real nova in it, as installed, but for the link to the shim."""
        directory = pathlib.Path(tempfile.mkdtemp(dir=self.directory))
        real = pathlib.Path(nova.__file__).parent
        (directory / "nova/virt").mkdir(parents=True)
        for place in (real, real / "virt"):
            for path in place.iterdir():
                if path.name not in ("virt", "kvmdriver.py", "__pycache__") or (
                    path.name == "virt" and place != real
                ):
                    (directory / "nova" / path.relative_to(real)).symlink_to(path)
        return directory

    def test_contents(self) -> None:
        names = zipfile.ZipFile(self.wheel).namelist()
        for name in ("kvmdriver-nova.pth", "kvmdriver/shim.py", "kvmdriver/nova/driver.py"):
            self.assertIn(name, names)
        # nova's own files must not be overwritten, and its directory must not be made
        self.assertEqual([], [n for n in names if n.startswith(("nova/", "tests/", "doc/"))])
        data = {n.partition(".data/data/")[2] for n in names if ".data/data/" in n}
        for name in (
            "etc/kvmdriver/kvmdriver.conf.sample",
            "share/kvmdriver/systemd/kvmdriver-agent.service",
        ):
            self.assertIn(name, data)

    def test_without_nova(self) -> None:
        done = self.run_python("import nova")
        self.assertIn("ModuleNotFoundError: No module named 'nova'", done.stderr)
        self.assertEqual(1, len(done.stderr.split("Traceback")) - 1, done.stderr)
        self.assertFalse((self.site / "nova").exists())

    def test_nova_finds_it(self) -> None:
        others = sysconfig.get_path("purelib")
        done = self.run_python(LOAD, f"{self.nova_without_shim()}:{others}")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(str(self.site / "kvmdriver/nova/compute_driver.py"), done.stdout.strip())

    def test_a_file_of_nova_counts_first(self) -> None:
        directory = self.nova_without_shim()
        (directory / "nova/virt/kvmdriver.py").symlink_to(TOP / "nova/virt/kvmdriver.py")
        done = self.run_python(LOAD, f"{directory}:{sysconfig.get_path('purelib')}")
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertEqual(str(directory / "nova/virt/kvmdriver.py"), done.stdout.strip())

    def test_python_starts_as_fast(self) -> None:
        """Every Python of the environment reads the .pth file: it may load next to nothing."""
        loaded = set(self.run_python("import sys; print(*sys.modules)").stdout.split())
        self.assertEqual(
            {"kvmdriver", "kvmdriver.shim"}, {m for m in loaded if m.startswith("kvmdriver")}
        )
        self.assertEqual(set(), loaded & {"importlib.util", "stevedore", "logging"})


class EditableTest(unittest.TestCase):
    def test_nova_finds_it(self) -> None:
        import nova.virt.kvmdriver as shim
        from nova.virt import driver

        self.assertTrue(issubclass(shim.KVMDriver, driver.ComputeDriver))
