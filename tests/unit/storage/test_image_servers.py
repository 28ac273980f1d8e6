import ipaddress
import unittest
from types import SimpleNamespace
from unittest import mock

from kvmdriver import exception
from kvmdriver.storage.image_servers import ImageServers, told


def servers(*networks: str, denied: tuple[str, ...] = ()) -> ImageServers:
    return ImageServers(
        networks=tuple(ipaddress.ip_network(text) for text in networks),
        denied=tuple(ipaddress.ip_network(text) for text in denied),
    )


class AddressesTest(unittest.TestCase):
    def test_ordinary_and_private_addresses(self) -> None:
        for address in ("93.184.216.34", "10.1.2.3", "192.168.0.9", "2001:db8::1", "fd00:1::1"):
            self.assertTrue(servers().allows(address), address)

    def test_special_addresses_in_every_spelling(self) -> None:
        for address in (
            "127.0.0.1", "127.8.9.1", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1",
            "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.192", "100.100.100.200",
            "168.63.129.16", "::", "::1", "fe80::1", "fe80::1%eth0", "ff02::1", "fec0::1",
            "fd00:ec2::254", "fd20:ce::254",
            "::ffff:127.0.0.1", "::ffff:169.254.169.254",  # mapped
            "::127.0.0.1", "::169.254.169.254",  # compatible
            "2002:7f00:1::", "2002:a9fe:a9fe::1",  # 6to4
            "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe",  # NAT64
            "2001:0:a9fe:a9fe::1", "2001:0:5db8:d822::5601:5601",  # Teredo: server, client
            "2001:db8::5efe:7f00:1", "2001:db8::200:5efe:a9fe:a9fe",  # ISATAP
        ):  # fmt: skip
            with self.subTest(address):
                self.assertFalse(servers().allows(address))
                # everything is not a network of loopback or metadata addresses
                self.assertFalse(servers("0.0.0.0/0", "::/0").allows(address))

    def test_only_the_networks_that_are_configured(self) -> None:
        inside = servers("10.20.0.0/16", "2001:db8::/32")
        for address in ("10.20.3.4", "2001:db8::7", "::ffff:10.20.3.4"):
            self.assertTrue(inside.allows(address), address)
        for address in ("10.21.0.1", "93.184.216.34", "2001:db9::1", "::ffff:10.21.0.1"):
            self.assertFalse(inside.allows(address), address)

    def test_a_special_network_by_its_name(self) -> None:
        local = servers("127.0.0.0/8")
        self.assertTrue(local.allows("127.0.0.1"))
        self.assertFalse(local.allows("169.254.169.254"))
        self.assertFalse(local.allows("10.0.0.1"))

    def test_denied_networks_win(self) -> None:
        self.assertFalse(servers("10.0.0.0/8", denied=("10.9.0.0/16",)).allows("10.9.1.1"))
        self.assertFalse(servers(denied=("10.9.0.0/16",)).allows("::ffff:10.9.1.1"))
        self.assertTrue(servers(denied=("10.9.0.0/16",)).allows("10.8.1.1"))


class ToldTest(unittest.TestCase):
    def test_what_may_be_secret_is_left_out(self) -> None:
        for url, shown in (
            ("https://a/b/c.qcow2", "https://a/b/c.qcow2"),
            ("https://a:8443/b?X-Signature=s3cr3t&x=1", "https://a:8443/b?..."),
            ("https://a/b#s3cr3t", "https://a/b"),
            ("https://user:s3cr3t@a/b@c", "https://a/b@c"),
            ("https://user:s3cr3t@a", "https://a"),
            ("rubbish?s3cr3t", "rubbish?..."),
        ):
            self.assertEqual(shown, told(url))

    def test_errors_tell_no_signature(self) -> None:
        for url in ("https://127.0.0.1/a?s3cr3t", "https://a:99999/a?s3cr3t", "ftp://a/b?s3cr3t"):
            with self.assertRaises(exception.KVMDriverError) as caught:
                servers().check_url(url)
            self.assertNotIn("s3cr3t", str(caught.exception.to_dict()))
            self.assertIn("?...", caught.exception.value)


class UrlsTest(unittest.TestCase):
    def refused(self, url: str, kind: type[exception.KVMDriverError]) -> exception.KVMDriverError:
        with self.assertRaises(kind) as caught:
            ImageServers().check_url(url)
        self.assertEqual("url", caught.exception.field)
        self.assertTrue(caught.exception.remedy)
        return caught.exception

    def test_taken_apart(self) -> None:
        target = ImageServers().check_url("https://Images.example/a b/%41.img?x=1&y=ü#part")
        self.assertEqual(
            ("https", "images.example", 443, "/a%20b/%41.img?x=1&y=%C3%BC"),
            (target.scheme, target.host, target.port, target.resource),
        )
        self.assertEqual(
            "xn--bcher-kva.example", ImageServers().check_url("http://bücher.example").host
        )

    def test_malformed(self) -> None:
        for url in (
            "http://", "http://a..b/x", "http://.a/x", "http://" + "a" * 64 + ".example/x",
            "http://host:99999/x", "http://host:x/", "http://[::1/x", "http://a b/x",
            "http://a\r\nX: y/", "http://a\x00b/",
        ):  # fmt: skip
            with self.subTest(url):
                self.refused(url, exception.InvalidRequest)

    def test_not_allowed(self) -> None:
        for url, option in (
            ("ftp://host/x", "image_url_schemes"),
            ("http://host:22/x", "image_url_ports"),
            ("http://host:0/x", "image_url_ports"),
            ("http://169.254.169.254/x", "image_url_networks"),
            ("http://[::ffff:127.0.0.1]/x", "image_url_networks"),
        ):
            with self.subTest(url):
                self.assertIn(option, self.refused(url, exception.ImageNotFound).remedy or "")

    def test_numbers_that_resolve_to_loopback(self) -> None:
        for host in ("2130706433", "127.1", "0x7f000001", "localhost"):
            target = ImageServers().check_url(f"http://{host}/x")
            with self.subTest(host), self.assertRaises(exception.ImageNotFound):
                ImageServers().resolve(target)

    def test_only_allowed_addresses_of_a_name_are_used(self) -> None:
        found = [(2, 1, 6, "", ("127.0.0.1", 80)), (2, 1, 6, "", ("10.0.0.5", 80))]
        target = ImageServers().check_url("http://images.example/x")
        with mock.patch("socket.getaddrinfo", return_value=found):
            self.assertEqual([(2, ("10.0.0.5", 80))], ImageServers().resolve(target))

    def test_a_network_that_is_none(self) -> None:
        group = SimpleNamespace(
            image_url_schemes=["http"],
            image_url_networks=["10.0.0.1/8"],
            image_url_denied_networks=[],
            image_url_ports=[],
            image_url_ca_file=None,
        )
        with self.assertRaises(exception.ConfigurationError) as caught:
            ImageServers.configured(group)
        self.assertEqual("kvm_storage.image_url_networks", caught.exception.field)
