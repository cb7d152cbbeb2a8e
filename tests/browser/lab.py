"""A JupyterLab and a Chromium: offline, with settings of their own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "figures" / "browser"
"""Screenshots of the last run, ignored by git."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Lab:
    """A JupyterLab on a folder of notebooks, and a browser on it."""

    def __init__(self, url: str, folder: Path, themes: Path, browser: Any) -> None:
        self.url, self.folder, self.themes, self.browser = url, folder, themes, browser
        self.left: list[str] = []
        """Addresses outside this machine that a page asked for; all were refused."""

    @contextmanager
    def page(self, width: int = 1280, height: int = 1000, dark: bool = False) -> Iterator[Any]:
        """A page that may not leave this machine."""
        context = self.browser.new_context(viewport={"width": width, "height": height})
        page = context.new_page()
        theme = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.themes.write_text(json.dumps({"theme": theme}))
        page.set_default_timeout(120_000)

        def guard(route: Any) -> None:
            address = route.request.url
            if address.startswith((self.url, "data:", "blob:", self.url.replace("http", "ws"))):
                route.continue_()
            else:
                self.left.append(address)
                route.abort()

        page.route("**/*", guard)
        try:
            yield page
        finally:
            context.close()

    def write(self, name: str, *cells: str) -> None:
        """A notebook of code cells."""
        made: list[dict[str, Any]] = [
            {"cell_type": "code", "execution_count": None, "id": f"cell-{i}", "metadata": {},
             "outputs": [], "source": cell}
            for i, cell in enumerate(cells)
        ]  # fmt: skip
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        notebook = {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4,
                    "nbformat_minor": 5}  # fmt: skip
        (self.folder / name).write_text(json.dumps(notebook))

    def open(self, page: Any, name: str, kernel: bool = True) -> None:
        """Open a notebook; with a kernel, wait until it can run."""
        page.goto(f"{self.url}/doc/tree/{name}?token=t&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        if kernel:
            # Run too early, and a dialog asks which kernel is meant.
            page.wait_for_function(
                "() => { const n = document.querySelector('.jp-KernelName');"
                " return n && !n.textContent.includes('No Kernel') }"
            )
            page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]",
                                   state="attached")  # fmt: skip

    def run_all(self, page: Any, seconds: int = 60) -> None:
        """Run every cell, and wait until the last is done."""
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
        page.wait_for_function(
            "() => { const p = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
            ".map(e => e.textContent); return p.length && p.every(t => /\\[\\d+\\]:/.test(t)) }",
            timeout=1000 * seconds,
        )

    def shot(self, page: Any, name: str) -> Path:
        """Keep a picture of what is seen."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}.png"
        page.screenshot(path=path)
        return path


@contextmanager
def started(home: Path) -> Iterator[Lab]:
    """JupyterLab and Chromium on a folder of `home`, which takes all settings."""
    from playwright.sync_api import sync_playwright

    folder = home / "notebooks"
    folder.mkdir()
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(home / "settings")
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("MPLBACKEND", None)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=t",
        f"--ServerApp.root_dir={folder}", "--LabApp.news_url=",
        "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with (home / "log.txt").open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(url, server, home / "log.txt")
        with sync_playwright() as driver:
            path = next(filter(None, map(shutil.which, BROWSERS)))
            browser = driver.chromium.launch(executable_path=path, args=QUIET)
            yield Lab(url, folder, settings / "themes.jupyterlab-settings", browser)
            browser.close()
    finally:
        # Its kernels are in its process group.
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _wait(url: str, server: Any, log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/api/status?token=t", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
