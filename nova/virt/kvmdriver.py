"""Where nova looks for ``compute_driver = kvmdriver.KVMDriver``: below ``nova.virt``, nowhere else.

Only for an editable kvmdriver, whose users link this file into nova: a wheel has ``kvmdriver.shim``.
"""

from kvmdriver.nova.compute_driver import KVMDriver

__all__ = ["KVMDriver"]
