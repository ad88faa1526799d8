# SPDX-License-Identifier: Apache-2.0
"""People at a real browser: Debian's Chromium, driven as somebody would, with every interaction counted."""

from __future__ import annotations

import base64
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

from node.cli.demo import one_time_code
from node.web.api import COOKIE

AXE = Path(__file__).parent / "vendor" / "axe-4.14.1.min.js"
#: Chromium looks up its maker's hosts unless it is told not to; nothing may leave this machine.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--in-process-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]


#: For anything that a page has to do; a busy machine is slow.
TIMEOUT_SECONDS = 30


#: The same engine without windows comes first: with it the tests cost three quarters of the time (measured).
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser")


def find_chromium() -> str:
    """The path of Chromium. Raises with the command to run."""
    found = os.environ.get("STAFFETTA_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise RuntimeError("The page tests need Chromium. Run: sudo apt-get install chromium")
    return found


#: What people who have left browsed with, wiped, by its language: a new one's first page costs as much as ten others.
_left: dict[str, list[Page]] = {}


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, closed afterwards."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            _left.clear()
            browser.close()


@dataclass
class Person:
    """Somebody at a browser of her own. `address` is the node's; `count` her interactions so far."""

    context: BrowserContext
    page: Page
    address: str
    #: Somebody else may go on with her browser if they speak this; None: it is hers alone.
    language: str | None = None
    count: int = 0
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._hears = {
            "console": lambda message: self.faults.append(message.text) if message.type == "error" else None,
            "pageerror": lambda error: self.faults.append(str(error)),
        }
        for event, hear in self._hears.items():
            self.page.on(event, hear)  # type: ignore[call-overload]

    def open(self, path: str) -> None:
        self.page.goto(self.address + path)

    def open_until(self, path: str, text: str, seconds: float = 30) -> None:
        """Open the page again and again until it says this: what another node does arrives in its own time."""
        until = time.monotonic() + seconds
        while True:
            self.open(path)
            if self.sees(text):
                return
            if time.monotonic() > until:
                raise AssertionError(f"{path} did not say {text!r} within {seconds:.0f} s.")
            self.page.wait_for_timeout(100)

    def click(self, name: str, *, role: Any = "button", exact: bool = True, within: Any = None) -> None:
        self.count += 1
        (within or self.page).get_by_role(role, name=name, exact=exact).first.click()

    def fill(self, label: str, text: str) -> None:
        self.count += 1
        self.page.get_by_label(label, exact=True).first.fill(text)

    def choose(self, label: str, value: str) -> None:
        self.count += 1
        self.page.get_by_label(label, exact=True).first.select_option(value)

    def tick(self, label: str, *, within: Any = None) -> None:
        self.count += 1
        (within or self.page).get_by_label(label, exact=True).first.check()

    def sees(self, text: str) -> bool:
        return text in self.page.locator("body").inner_text()

    def wait_for(self, text: str, seconds: float = 15) -> None:
        self.page.get_by_text(text, exact=False).first.wait_for(timeout=seconds * 1000)

    def adopt(self, cookie: str) -> None:
        """Go on with a session that was begun through the API: its code cannot be used a second time."""
        self.context.add_cookies([{"name": COOKIE, "value": cookie, "url": self.address, "sameSite": "Strict"}])

    def leave(self) -> None:
        """Nothing of her is left in her browser: what it kept, what it was told, where it has been."""
        if self.language is None or self.page.is_closed():
            self.context.close()
            return
        for other in self.context.pages:
            if other is not self.page:
                other.close()
        for event, hear in self._hears.items():
            self.page.remove_listener(event, hear)
        self.page.unroute_all()
        self.context.unroute_all()
        self.context.clear_cookies()
        try:
            self.page.goto(self.address + "/healthz")
            self.page.evaluate("sessionStorage.clear()")
        except Error:  # the node has ended
            self.context.close()
            return
        broom = self.context.new_cdp_session(self.page)
        broom.send("Storage.clearDataForOrigin", {"origin": self.address, "storageTypes": "all"})
        self.page.goto("about:blank")
        broom.send("Page.resetNavigationHistory")
        broom.detach()
        _left.setdefault(self.language, []).append(self.page)

    def sign_in(self, handle: str, passphrase: str, secret: str) -> None:
        self.open("/signin")
        self.fill("Work name", handle)
        self.fill("Passphrase", passphrase)
        self.fill("Code from your authenticator", fresh_code(secret))
        self.click("Sign in")


_used: dict[str, int] = {}


def fresh_code(secret: str) -> str:
    """A code that was not used before: each works once, so a second sign-in within 30 seconds waits for the next."""
    while int(time.time()) // 30 <= _used.get(secret, 0):
        time.sleep(0.2)
    _used[secret] = int(time.time()) // 30
    return one_time_code(secret)


def person(
    browser: Browser, address: str, *, language: str = "en", width: int = 1200, own: bool = False, **options: Any
) -> Person:
    """Somebody at a browser; what it complains about (errors, refused content) is in `faults`.

    `own`, or any option of its own: nobody has used it before and nobody will. For whoever changes more in it than a
    page does: tools, functions, emulation.
    """
    kept = None if own or options else language
    if kept and _left.get(kept):
        page = _left[kept].pop()
    else:
        headers = {"Accept-Language": language}
        page = browser.new_context(locale=language, extra_http_headers=headers, **options).new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.set_default_timeout(TIMEOUT_SECONDS * 1000)
    return Person(page.context, page, address.replace("127.0.0.1", "localhost"), kept)


def axe(page: Page) -> list[str]:
    """What axe finds on the page: each rule with where it was broken. By `evaluate`, which the page's CSP allows."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    found = page.evaluate(
        "axe.run(document, {resultTypes: ['violations'],"
        " runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
    )
    return [
        f"{violation['id']}: {node['target']} {node['html'][:120]}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def screenshot(page: Page, path: Path) -> None:
    page.screenshot(path=path, full_page=True)


def secret_of(totp_uri_secret: str) -> str:
    """The secret as the demo's helper wants it."""
    assert base64.b32decode(totp_uri_secret + "=" * (-len(totp_uri_secret) % 8))
    return totp_uri_secret
