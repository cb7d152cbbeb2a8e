"""One JupyterLab and one Chromium for all browser tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.lab import BROWSERS, Lab, started


def browser_is_missing() -> str | None:
    """Why there can be no browser test, or None."""
    try:
        import jupyterlab  # noqa: F401
        import playwright  # noqa: F401
    except ImportError as reason:
        return f"the browser tests need {reason.name}: pip install -e '.[test,dev]'"
    if not any(map(shutil.which, BROWSERS)):
        return f"no browser here: install one of {', '.join(BROWSERS)} (apt-get install chromium)"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip where there is no browser, and keep all of it in one worker: it has one JupyterLab."""
    reason = browser_is_missing()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("browser"))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab and Chromium, started once."""
    with started(tmp_path_factory.mktemp("lab")) as running:
        yield running
