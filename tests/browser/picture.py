"""Draw docs/images/report.png: curve and map of configs/quickstart.yaml.

`python -m tests.browser.picture`; `make pages` does not, since fonts differ between machines.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from click.testing import CliRunner
from playwright.sync_api import sync_playwright

from emulator.cli.main import cli
from tests.browser.conftest import ARGUMENTS, CHROMIUM

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "images" / "report.png"


def main() -> None:
    """Run the scenario, open its report, keep the part from the first chart to the map."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        out = Path(folder) / "out"
        scenario = str(ROOT / "configs" / "quickstart.yaml")
        CliRunner().invoke(cli, ["run", scenario, "-o", str(out)], standalone_mode=False)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
        page.goto((out / "report.html").as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")
        page.evaluate(
            "for (const each of document.querySelectorAll('details, .tools, .hint')) each.remove()"
        )
        first, last = (page.locator(place).bounding_box() for place in ("#resident", "#map"))
        assert first is not None
        assert last is not None
        top = first["y"] - 84
        page.screenshot(
            path=PICTURE,
            full_page=True,
            clip={"x": 0, "y": top, "width": 1000, "height": last["y"] + last["height"] - top + 8},
        )
        browser.close()


if __name__ == "__main__":
    main()
