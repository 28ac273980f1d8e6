"""The consoles of a server as a person uses them: a browser, and a websocket to the serial port.

Run inside the namespaces of the first host, where nova's proxies listen::

    python -m tests.openstack.consoles serial URL LINE PATTERN
    python -m tests.openstack.consoles screen [--login] URL LINE COLOUR FILE.png
"""

import argparse
import contextlib
import io
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import websocket
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

USER, PASSWORD = "root", "kvmdriver"
# a guest under emulation, on a machine with other work
SECONDS = 40
ATTEMPTS, ANSWER_SECONDS = 3, 15
# of the text mode of VGA, as the guest's kernel has it at first
COLOURS = {"blue": (0, 0, 170), "green": (0, 170, 0)}
# so much of the screen has a colour when it is painted; the rest is what is written on it
MOST = 0.8
LINE_HEIGHT = 16
_BROWSER = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1000,700",
)  # fmt: skip


class Failed(Exception):
    """The console did not do what a person would expect of it."""


def share(picture: Image.Image, colour: str) -> float:
    """How much of a picture has a colour, from 0 to 1."""
    counted = picture.convert("RGB").getcolors(picture.width * picture.height) or []
    near = sum(
        count
        for count, shown in counted
        if max(abs(one - other) for one, other in zip(shown, COLOURS[colour], strict=True)) < 40
    )
    return near / (picture.width * picture.height)


class Serial:
    """A serial port behind nova-serialproxy."""

    def __init__(self, url: str):
        self._socket = websocket.create_connection(url, timeout=SECONDS, subprotocols=["binary"])
        self._seen = ""

    def send(self, text: str) -> None:
        self._socket.send_binary(text.encode())

    def wait_for(self, pattern: str) -> str:
        """What came up to the first match, which later calls do not see again."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self._seen)):
            if time.monotonic() > deadline:
                raise Failed(f"{pattern} has not come, but {self._seen[-500:]!r}")
            data = self._socket.recv()
            self._seen += data if isinstance(data, str) else data.decode(errors="replace")
        text, self._seen = self._seen[: found.end()], self._seen[found.end() :]
        return text

    def log_in(self) -> None:
        self.send("\n")
        self.wait_for("login: ")
        self.send(f"{USER}\n")
        self.wait_for("Password: ")
        self.send(f"{PASSWORD}\n")
        self.wait_for("# ")


class Screen:
    """A browser on the page of a VNC or SPICE client; the guest is in a text mode of VGA."""

    def __init__(self, driver: webdriver.Chrome, url: str):
        self._driver = driver
        driver.get(url)
        self._wait_for(lambda: self.rows() > 0, "a screen with text", SECONDS)

    def _canvas(self):
        return self._driver.find_element(By.TAG_NAME, "canvas")

    def picture(self) -> Image.Image:
        """The guest's screen, as the browser shows it."""
        return Image.open(io.BytesIO(self._canvas().screenshot_as_png)).convert("RGB")

    def rows(self) -> int:
        """How many lines there are down to the last with something on it."""
        found = self._driver.find_elements(By.TAG_NAME, "canvas")
        # before the client has heard of the screen it is not there, or nothing
        if not found or not all(found[0].rect[side] for side in ("width", "height")):
            return 0
        picture = self.picture()
        # without the frame that a client may draw around it
        inner = picture.crop((4, 4, picture.width - 4, picture.height - 4)).convert("L")
        box = inner.point(lambda value: 255 if value > 64 else 0).getbbox()
        return 0 if box is None else box[3] // LINE_HEIGHT + 1

    def type(self, line: str) -> None:
        """Press the keys of a line, and Enter, at the pace of a person."""
        ActionChains(self._driver).click(self._canvas()).perform()
        actions = ActionChains(self._driver)
        for key in (*line, Keys.ENTER):
            actions.send_keys(key).pause(0.1)
        actions.perform()

    def log_in(self) -> None:
        """Log in: each answer, first the prompt for the password, is one line further down."""
        for text in (USER, PASSWORD):
            before = self.rows()
            self.type(text)
            with contextlib.suppress(TimeoutException):
                self._wait_for(lambda before=before: self.rows() > before, f"an answer to {text}")

    def run(self, line: str, colour: str, *, login: bool) -> None:
        """Type a command until the screen has the colour that the command gives it.

        A keyboard drops keys that the guest does not fetch in time, and a guest under emulation may
        not get that time for a moment. A shell takes what is meant for a login as commands that it
        does not know, so that both can be typed again without a look at the screen.
        """
        for attempt in range(ATTEMPTS):
            if attempt:
                self.type("")
            if attempt or login:
                self.log_in()
            self.type(line)
            with contextlib.suppress(TimeoutException):
                self._wait_for(lambda: share(self.picture(), colour) > MOST, f"a {colour} screen")
                return
        raise Failed(f"{line} has not made the screen {colour}")

    def save(self, path: str) -> None:
        """Write what the whole window of the browser shows."""
        picture = Image.open(io.BytesIO(self._driver.get_screenshot_as_png()))
        picture.convert("P", palette=Image.Palette.ADAPTIVE, colors=32).save(path, optimize=True)

    def _wait_for(
        self, condition: Callable[[], bool], what: str, seconds: float = ANSWER_SECONDS
    ) -> None:
        WebDriverWait(self._driver, seconds).until(
            lambda _driver: condition(), f"waited {seconds} s in vain for {what}"
        )


@contextlib.contextmanager
def _browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    # as Debian and as Fedora calls it; named, or selenium would look for one to download
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    driver_path = shutil.which("chromedriver")
    if not options.binary_location or not driver_path:
        raise Failed("the browser is missing: install the [openstack] packages of bindep.txt")
    with tempfile.TemporaryDirectory() as profile:
        for argument in (*_BROWSER, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
        try:
            yield driver
        finally:
            driver.quit()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.openstack.consoles", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, more in (("serial", ("pattern",)), ("screen", ("colour", "file"))):
        command = kinds.add_parser(kind)
        for name in ("url", "line", *more):
            command.add_argument(name)
    command.add_argument("--login", action="store_true", help="nobody is logged in there yet")
    arguments = parser.parse_args()
    if arguments.kind == "serial":
        serial = Serial(arguments.url)
        serial.log_in()
        serial.send(f"{arguments.line}\n")
        print(serial.wait_for(arguments.pattern))
        return 0
    with _browser() as driver:
        screen = Screen(driver, arguments.url)
        try:
            screen.run(arguments.line, arguments.colour, login=arguments.login)
        finally:
            screen.save(arguments.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
