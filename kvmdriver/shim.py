"""Lets nova-compute find ``compute_driver = kvmdriver.KVMDriver``.

nova imports drivers from ``nova.virt`` only. A file in nova's own directory would leave an empty
``nova`` where there is none, and would be overlooked where nova is installed editable. So
``kvmdriver-nova.pth`` in site-packages imports this module when Python starts, and the finder
answers for one name. It asks after all others: a file ``nova/virt/kvmdriver.py`` counts first.
"""

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

NAME = "nova.virt.kvmdriver"


class Finder:
    """Finds the module ``nova.virt.kvmdriver``, and nothing else."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's place; None for every other name.

        Python asks only when ``nova.virt`` itself has been imported.
        """
        if name != NAME:
            return None
        # not at the top: this module is imported whenever Python starts
        from importlib.util import spec_from_file_location

        file = os.path.join(
            os.path.dirname(os.path.abspath(__file__)), "nova", "compute_driver.py"
        )
        return spec_from_file_location(name, file)


if Finder not in sys.meta_path:
    sys.meta_path.append(Finder)
