import os

import setuptools
from setuptools.command.build_py import build_py

PTH = "kvmdriver-nova.pth"


class BuildWithPth(build_py):
    """Puts the .pth file beside the packages, where Python reads it when it starts."""

    def run(self):
        super().run()
        if not self.editable_mode:
            self.copy_file(PTH, os.path.join(self.build_lib, PTH))

    def get_outputs(self, include_bytecode=True):
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, os.path.join(self.build_lib, PTH)]


class Distribution(setuptools.Distribution):
    """pbr replaces ``cmdclass`` by that of setup.cfg, which can name installed classes only."""

    def get_command_class(self, command):
        return BuildWithPth if command == "build_py" else super().get_command_class(command)


setuptools.setup(setup_requires=["pbr>=6.0"], pbr=True, distclass=Distribution)
