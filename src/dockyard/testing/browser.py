"""A real headless Chromium for tests, driven by the DevTools protocol over its pipe (no driver, no web socket).

`--remote-debugging-pipe`: JSON messages that end with a NUL, to descriptor 3, from descriptor 4 of the browser.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = "/usr/bin/chromium"
_WAIT = 30.0
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-features=Translate,OptimizationHints,MediaRouter", "--no-proxy-server", "--force-color-profile=srgb",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


class BrowserError(AssertionError):
    """The browser refused, or what was waited for did not come."""


class Browser:
    def __init__(self, write: int, read: int) -> None:
        self._write = write
        self._read = read
        self._selector = selectors.DefaultSelector()
        self._selector.register(read, selectors.EVENT_READ)
        self._buffer = b""
        self._ids = 0
        self.events: list[dict[str, Any]] = []
        """Console messages, exceptions, refused loads: what a page must not have."""

    def send(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        self._ids += 1
        number = self._ids
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + _WAIT
        while True:
            answer = self._message(end)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._event(answer)

    def _message(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not self._selector.select(max(0.0, end - time.monotonic())):
                raise BrowserError("the browser does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise BrowserError("the browser ended")
            self._buffer += data
        raw, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        return message

    def _event(self, message: dict[str, Any]) -> None:
        method = message.get("method", "")
        if method in {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}:
            self.events.append(message)
        elif method == "Page.javascriptDialogOpening":  # hx-confirm: a person who says yes
            self._ids += 1
            answer = {"id": self._ids, "method": "Page.handleJavaScriptDialog", "params": {"accept": True},
                      "sessionId": message["sessionId"]}  # fmt: skip
            os.write(self._write, json.dumps(answer).encode() + b"\0")

    def tab(self) -> Tab:
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.send(f"{domain}.enable")
        return tab


class Tab:
    """One page in a context of its own (cookies are not shared between tabs)."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self._session = session

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.send(method, self._session, **params)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        got = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in got:
            raise BrowserError(got["exceptionDetails"].get("exception", {}).get("description", script))
        return got["result"].get("value")

    def wait(self, script: str) -> Any:
        """Until the expression is true; its value."""
        end = time.monotonic() + _WAIT
        while True:
            try:
                value = self.run(script)
            except BrowserError:  # the page is being replaced
                value = None
            if value:
                return value
            if time.monotonic() > end:
                shown = self.run("document.body ? document.body.innerText.slice(0, 2000) : ''")
                raise BrowserError(f"never true: {script}\n{shown}")
            time.sleep(0.05)  # polling a real browser; bounded by _WAIT

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url.partition('#')[0])}) && document.readyState === 'complete'")

    def fill(self, selector: str, text: str) -> None:
        """As typed: key by key events reach the page."""
        self.run(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.value = ''; }})()")
        self.send("Input.insertText", text=text)

    def click(self, selector: str, text: str = "") -> None:
        """The first visible match (with that text in it). A click by the page's own event path."""
        found = self.run(
            f"(() => {{ const e = [...document.querySelectorAll({json.dumps(selector)})].find(e => e.offsetParent !== null"
            f" && e.textContent.includes({json.dumps(text)})); if (e) setTimeout(() => e.click(), 0); return !!e; }})()"
        )
        if not found:
            raise BrowserError(f"nothing to click: {selector} {text}")

    def follow(self, selector: str, text: str = "") -> None:
        """Click, and wait for the page that comes."""
        self.run("window.stale = true")
        self.click(selector, text)
        self.wait("!window.stale && document.readyState === 'complete'")

    def key(self, key: str, code: str = "", text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, **({"text": text} if text else {}))

    def text(self) -> str:
        return str(self.run("document.body.innerText"))

    def size(self, width: int, height: int = 900, *, phone: bool = False, dark: bool = False) -> None:
        scale = 2 if phone else 1
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def nodes(self) -> list[dict[str, Any]]:
        """The accessibility tree as a screen reader gets it."""
        nodes: list[dict[str, Any]] = self.send("Accessibility.getFullAXTree")["nodes"]
        return [node for node in nodes if not node.get("ignored")]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    home = tempfile.mkdtemp(prefix="dockyard-browser-")
    to_child, write = os.pipe()
    read, from_child = os.pipe()

    def hand_over() -> None:
        # Both ends first away from 3 and 4, so that neither dup2 closes the other's source.
        high_in, high_out = os.dup2(to_child, 60), os.dup2(from_child, 61)
        os.dup2(high_in, 3)
        os.dup2(high_out, 4)

    process = subprocess.Popen(
        [CHROMIUM, f"--user-data-dir={home}", *_FLAGS], pass_fds=(3, 4), preexec_fn=hand_over, close_fds=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | {"HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home},
    )  # fmt: skip
    os.close(to_child)
    os.close(from_child)
    made = Browser(write, read)
    try:
        yield made
        with contextlib.suppress(BrowserError):
            made.send("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait(10)
        os.close(write)
        os.close(read)
        shutil.rmtree(home, ignore_errors=True)
