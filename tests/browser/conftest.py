"""Reports of real runs, in a real Chromium that reaches nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Page, sync_playwright

from emulator.cli.main import cli

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), "")
ARGUMENTS = [
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

RUN = """
name: "two files </script><b>"
description: A file comes and goes.
seed: 7
guest: {memory: 1GiB, vcpus: 2}
reporting: {delay: 1s}
phases:
  - {name: file, run: [{kind: tmpfs, size: 256MiB, keep: 1s}]}
  - {name: given back, duration: 6s, run: [{kind: idle}]}
  - {name: again, run: [{kind: tmpfs, size: 512MiB, keep: 1s}]}
expect:
  - {metric: reporting.bytes, min: 1MiB}
  - {metric: overhead.runtime_pct, max: 0.0001}
"""
FLEET = """
name: fleet
guest: {memory: 512MiB, vcpus: 1}
host: {memory: 2GiB, swap: 2GiB}
vms: [{count: 3, arrive: {every: 1s}}]
phases: [{run: [{kind: tmpfs, size: 128MiB, keep: 2s}]}]
duration: 8s
"""
EDGES = {
    "order-0": "reporting: {order: 0}",
    "balloon": "reporting: {policy: balloon}",
    "oracle": "reporting: {policy: oracle}",
    "two-balloon": "reporting: {policy: balloon}\nvms: [{count: 2}]\nduration: 6s",
    "all-gone": "reporting: {order: 0}\nvms: [{count: 2, lifetime: 2s}]\nduration: 6s",
    "none-came": "vms: [{arrive: {at: [9s]}}]\nduration: 6s",
}
"""Runs that have less to show than others."""
TINY = (
    "guest: {memory: 256MiB, vcpus: 1}\nphases: [{run: [{kind: tmpfs, size: 64MiB, keep: 3s}]}]\n"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A machine without the browser skips what is in this folder."""
    if CHROMIUM:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="no Chromium here: make browser, as root"))


def results(folder: Path, name: str, text: str, *command: str) -> Path:
    """The folder that a command leaves of a scenario."""
    (folder / f"{name}.yaml").write_text(text)
    target = folder / name
    arguments = [*command, str(folder / f"{name}.yaml"), "-o", str(target)]
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert done.exception is None, done.exception
    return target


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of results by what was done."""
    folder = tmp_path_factory.mktemp("reports")
    return {
        "run": results(folder, "run", RUN, "run"),
        "fleet": results(folder, "fleet", FLEET, "run"),
        "compare": results(
            folder, "compare", RUN, "compare", "--vary", "reporting.order=9,10", "--seeds", "1..2"
        ),
        **{name: results(folder, name, TINY + text, "run") for name, text in EDGES.items()},
    }


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests of a process."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Opened:
    """A report in a page of its own, and all that the browser complained of or asked for."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.complaints, self.requests = page, list[str](), list[str]()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())
        if page.locator("#data").count():
            page.wait_for_selector("html[data-drawn]", state="attached")


@pytest.fixture
def opened(browser: Browser) -> Iterator[type]:
    """Opens reports; what is given is an option of the browser's context."""
    contexts = []

    def open_report(folder: Path, **options: object) -> Opened:
        context = browser.new_context(offline=True, **options)  # type: ignore[arg-type]
        contexts.append(context)
        return Opened(context.new_page(), folder / "report.html")

    yield open_report  # type: ignore[misc]
    for context in contexts:
        context.close()
