# SPDX-License-Identifier: Apache-2.0
"""An agency ends, at a real browser: two people retire its node, and nobody gets in again. A node of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.people import person
from tests.federation.nodes import RealNode
from tests.federation.test_api import hire
from tests.federation.test_operator import run


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RealNode]:
    tmp_path.chmod(0o700)
    made = RealNode(tmp_path, "lantern", "NGO")
    try:
        made.finish_set_up(made.set_up())
        (made.folder / "demo-clock").unlink()
        made.begin()
        assert made.wait(90)
        made.log_in()
        yield made
    finally:
        made.end()
        made.log.close()


def test_two_people_retire_a_node_from_the_first_page_to_its_certificate(
    browser: Browser, node: RealNode, tmp_path: Path
) -> None:
    desk = node.client.post("/api/v1/desks", {"name": "Desk"})["id"]
    case = node.client.post("/api/v1/cases", {"desk": desk})["id"]
    cookies = (node.client.cookie, hire(node, "adam", ["administrator"]).cookie)
    first, second = (person(browser, node.address) for _ in cookies)
    for somebody, cookie in zip((first, second), cookies, strict=True):
        somebody.adopt(str(cookie))
    # Not while somebody is open, and not with a list for nobody.
    first.open("/retire")
    assert first.page.locator("main a[href='/overview']").count() and first.sees("Choose a backstop first.")
    first.click("Ask a second person")
    assert first.sees("Close them or hand them over one by one")
    node.client.post(f"/api/v1/cases/{case}/close")
    # Whoever asks cannot agree; any of them can say no.
    first.open("/retire")
    assert first.sees("Nothing is open.")
    first.click("Ask a second person")
    assert first.sees("A second person has to agree within four hours.")
    assert first.page.get_by_role("button", name="I agree: retire this node").count() == 0
    first.click("No, go on as before")
    first.click("Ask a second person")
    # The second person agrees, and has to mean it.
    second.open("/retire")
    assert second.sees("asks that this node retires.")
    second.click("I agree: retire this node")
    assert second.sees("Tick this too: it cannot be undone.")
    second.tick("I know that everything here is erased, and that nobody can sign in again")
    second.click("I agree: retire this node")
    second.page.wait_for_url("**/signin*")
    # Nobody gets in again: not with a session that was there, and there is no form to begin one.
    first.open("/cases")
    assert first.sees("This node has retired")
    (certificate,) = _certificate(node, tmp_path).glob("certificate.json")
    said = run(tmp_path, "verify", str(certificate)).stdout
    assert "Its node has retired" in said
    first.open("/signin")
    assert first.sees("This node has retired") and first.page.get_by_label("Passphrase").count() == 0
    assert node.rows("SELECT COUNT(*) FROM records") == node.rows("SELECT COUNT(*) FROM desk_wraps") == [(0,)]
    assert json.loads(certificate.read_text())["statement"], "signed"
    assert [f for f in first.faults + second.faults if not any(code in f for code in ("409", "422", "410"))] == []
    for somebody in (first, second):
        somebody.context.close()


def _certificate(node: RealNode, root: Path) -> Path:
    """Begun again at once, the node goes on where it was; otherwise the erasing waits for its next minute."""
    node.end()
    node.begin()
    assert node.wait(90)
    folder, until = root / "left", time.monotonic() + 120
    while node.rows("SELECT COUNT(*) FROM settings WHERE name = 'retire-certificate'") != [(1,)]:
        assert time.monotonic() < until
        time.sleep(0.1)
    done = run(node.folder, "retire", "--files", str(folder))
    assert done.returncode == 0, done.stderr
    return folder
