import unittest

from kvmdriver.hypervisor.capabilities import DomainCapabilities, HostCapabilities

HOST = """<capabilities>
  <host><uuid>u</uuid><cpu><arch>x86_64</arch><model>EPYC</model></cpu></host>
  <guest><os_type>hvm</os_type><arch name='i686'><domain type='qemu'/>
    <machine>isapc</machine></arch></guest>
  <guest><os_type>hvm</os_type><arch name='x86_64'>
    <machine maxCpus='255'>pc-i440fx-7.2</machine>
    <machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine>
    <domain type='qemu'/><domain type='kvm'/></arch></guest>
</capabilities>"""

DOMAIN = """<domainCapabilities>
  <path>/usr/bin/qemu-system-x86_64</path><domain>kvm</domain><machine>pc-q35-7.2</machine>
  <arch>x86_64</arch><vcpu max='288'/>
  <os supported='yes'><enum name='firmware'><value>efi</value></enum>
    <loader supported='yes'><value>/OVMF.fd</value>
      <enum name='secure'><value>yes</value><value>no</value></enum></loader></os>
  <cpu><mode name='host-passthrough' supported='yes'/><mode name='maximum' supported='no'/>
    <mode name='custom' supported='yes'><model usable='yes'>EPYC</model>
      <model usable='no'>Icelake-Server</model><model usable='unknown'>x</model></mode></cpu>
  <devices><disk supported='yes'><enum name='bus'><value>virtio</value></enum></disk>
    <video supported='yes'><enum name='modelType'><value>vga</value></enum></video>
    <rng supported='yes'><enum name='model'><value>virtio</value></enum></rng></devices>
</domainCapabilities>"""


class CapabilitiesTest(unittest.TestCase):
    def test_host(self) -> None:
        host = HostCapabilities.parse(HOST)
        self.assertEqual(("x86_64", "EPYC"), (host.architecture, host.cpu_model))
        self.assertEqual(("qemu", "kvm"), host.virt_types)
        self.assertEqual("pc-q35-7.2", host.machines["q35"])
        self.assertNotIn("isapc", host.machines)

    def test_group_of_qemu(self) -> None:
        self.assertIsNone(HostCapabilities.parse(HOST).qemu_group)
        models = (
            "<secmodel><model>none</model><doi>0</doi></secmodel><secmodel><model>dac</model>"
            "<doi>0</doi><baselabel type='kvm'>+64055:+109</baselabel>"
            "<baselabel type='qemu'>+64055:+109</baselabel></secmodel></host>"
        )
        host = HostCapabilities.parse(HOST.replace("</host>", models))
        self.assertEqual(109, host.qemu_group)

    def test_domain(self) -> None:
        domain = DomainCapabilities.parse(DOMAIN)
        self.assertEqual({"host-passthrough", "custom"}, domain.cpu_modes)
        self.assertEqual({"EPYC": True, "Icelake-Server": False, "x": True}, domain.cpu_models)
        self.assertEqual(
            ({"efi"}, True, 288), (domain.firmwares, domain.secure_boot, domain.max_vcpus)
        )
        self.assertTrue(domain.rng)
