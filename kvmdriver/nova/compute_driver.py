"""The class that nova-compute loads as ``nova.virt.kvmdriver.KVMDriver``; see ``kvmdriver.shim``.

Everything is in ``kvmdriver.nova``; the class is found as every driver of kvmdriver is.
"""

from kvmdriver import plugins

KVMDriver = plugins.load(
    "kvmdriver.nova_drivers", "kvmdriver.KVMDriver", field="DEFAULT.compute_driver"
)
