"""The report of an hour of a guest with 64 GiB: its size, and how soon Chromium has drawn it."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from click.testing import CliRunner
from playwright.sync_api import sync_playwright

from emulator.cli.main import cli

SCENARIO = """
name: hour
guest: {memory: 64GiB, vcpus: 8}
phases:
  - name: hour
    duration: 60min
    run:
      - {kind: churn, processes: 4, duration: 60min, pause: 100ms, live_limit: 8GiB}
      - {kind: tmpfs, size: 8GiB, keep: 10min}
"""


def run() -> list[tuple[str, float, str]]:
    """Of a machine without Chromium, the size alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "hour.yaml").write_text(SCENARIO)
        arguments = ["run", str(folder / "hour.yaml"), "-o", str(folder / "out")]
        CliRunner().invoke(cli, arguments, standalone_mode=False)
        report = folder / "out" / "report.html"
        size = [("an hour, 64 GiB: report", report.stat().st_size / 1e6, "MB")]
        chromium = shutil.which("chromium")
        if chromium is None:
            return size
        return [*size, ("drawn in Chromium, median of 5", _drawn_s(report, chromium), "s")]


def _drawn_s(report: Path, chromium: str) -> float:
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for _ in range(5):
            page = browser.new_page(offline=True)
            start = time.perf_counter()
            page.goto(report.as_uri())
            page.wait_for_selector("html[data-drawn]", state="attached")
            times.append(time.perf_counter() - start)
            page.close()
        browser.close()
    return sorted(times)[2]
