"""A JupyterLab and a Chromium: offline, with settings of their own."""

import ast
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
SETTINGS = {
    "apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false"},
    # Cells far down the page are there, too.
    "notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}
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

    def __init__(self, url: str, folder: Path, runtime: Path, browser: Any) -> None:
        self.url, self.folder, self.runtime = url, folder, runtime
        # One for all pages, so that JupyterLab's scripts are read once.
        self.context = browser.new_context(viewport={"width": 1280, "height": 1000})
        self.left: list[str] = []
        """Addresses outside this machine that a page asked for; all were refused."""

    @contextmanager
    def page(self) -> Iterator[Any]:
        """A page that may not leave this machine."""
        page = self.context.new_page()
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
            page.close()

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

    def theme(self, page: Any, dark: bool) -> None:
        """Change the theme, and wait until it is there."""
        name = "JupyterLab Dark" if dark else "JupyterLab Light"
        page.evaluate(
            "theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", name
        )
        page.wait_for_selector(f"body[data-jp-theme-name='{name}']", state="attached")

    def asked(self, code: str, expression: str = "None") -> Any:
        """Run code in the youngest kernel, unseen by the page, and give the value of a literal."""
        from jupyter_client import BlockingKernelClient

        files = sorted(self.runtime.glob("kernel-*.json"), key=lambda file: file.stat().st_mtime)
        client = BlockingKernelClient(connection_file=str(files[-1]))
        client.load_connection_file()
        client.start_channels()
        try:
            reply = client.execute(
                code, store_history=False, user_expressions={"it": expression}, reply=True,
                timeout=120,
            )["content"]  # fmt: skip
        finally:
            client.stop_channels()
        assert reply["status"] == "ok", reply
        return ast.literal_eval(reply["user_expressions"]["it"]["data"]["text/plain"])

    def shot(self, what: Any, name: str) -> Path:
        """Keep a picture of a page, or of a part of it."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}.png"
        what.screenshot(path=path)
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
    settings = home / "settings" / "@jupyterlab"
    for name, what in SETTINGS.items():
        (settings / name).parent.mkdir(parents=True, exist_ok=True)
        (settings / name).write_text(json.dumps(what))
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(home / "settings")
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("MPLBACKEND", None)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=t",
        f"--ServerApp.root_dir={folder}", "--LabApp.news_url=",
        "--LabApp.expose_app_in_browser=True",
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
            yield Lab(url, folder, home / "runtime", browser)
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
