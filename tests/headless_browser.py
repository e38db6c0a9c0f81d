"""Headless Chromium for tests that look at a page as a person would."""

import os
import shutil
from typing import Any

import pytest

__all__ = ["start_browser"]

_CHROMIUM, _DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


def start_browser() -> Any:
    """A browser that logs its console and every request; where there is none the test skips with the reason, and fails in CI."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    missing = [path for path in (_CHROMIUM, _DRIVER) if not shutil.which(path)]
    if missing:
        reason = f"needs {' and '.join(missing)}: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = Options()
    options.binary_location = _CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(_DRIVER))
