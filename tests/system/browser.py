"""A real browser for tests of what people see: Debian's Chromium, driven without a window."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By

from dspy_jobs.waiting import wait_until

#: As root it needs no sandbox; the others keep it from asking anybody for anything.
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--no-proxy-server", "--window-size=1600,1000",
)  # fmt: skip
#: Seconds a page may take to show something on a busy machine.
BOUND = 20.0


class Browser:
    """One browser window."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Go to a page; it has loaded, but may not have shown yet what it fetches."""
        self.driver.get(url)

    @property
    def text(self) -> str:
        """What a person can read on the page now."""
        try:
            return self.driver.find_element(By.TAG_NAME, "body").text
        except StaleElementReferenceException:  # the page changes just now
            return ""

    @property
    def source(self) -> str:
        """The whole page as it is now, also what is not shown."""
        return self.driver.page_source

    def links(self, part: str, at: str | None = None) -> list[str]:
        """Where links go whose address has this part, once there are any: the page's, or another's if it is named."""
        if at:
            self.open(at)
        assert self.wait(lambda: self._links(part)), f"no link to {part}"
        return sorted(set(self._links(part)))

    def _links(self, part: str) -> list[str]:
        script = "return Array.from(document.links, link => link.href)"
        return [href for href in self.driver.execute_script(script) if part in href]

    def type_into(self, selector: str, text: str) -> None:
        """Write into the field that this CSS selector finds."""
        assert self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector)), f"no {selector}"
        self.driver.find_element(By.CSS_SELECTOR, selector).send_keys(text)

    def shows(self, *words: str) -> bool:
        """Whether the page shows all of this, at once or soon. White space does not count: pages break long words."""
        return wait_until(lambda: _is_in(words, self.text), BOUND)

    def wait(self, condition: Callable[[], Any]) -> bool:
        """Whether something comes true soon."""
        return wait_until(lambda: bool(condition()), BOUND)

    def complaints(self) -> list[str]:
        """What the page's scripts have complained of since it was asked last: errors in its console."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def _is_in(words: Iterable[str], text: str) -> bool:
    dense = "".join(text.split())
    return all("".join(word.split()) in dense for word in words)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser that is closed with the block; the test is skipped where there is none."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no browser here: `make system-packages` installs it")
    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    for flag in _FLAGS:
        options.add_argument(flag)
    with tempfile.TemporaryDirectory(prefix="dj-browser-") as profile:
        options.add_argument(f"--user-data-dir={profile}")
        driver = Chrome(options, ChromeService(chromedriver))
        try:
            yield Browser(driver)
        finally:
            driver.quit()
