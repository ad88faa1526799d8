# SPDX-License-Identifier: Apache-2.0
"""Two real agencies with people of every role, and a real browser. Made once for each test process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser

from node.cli.client import Client
from node.cli.demo import one_time_code
from tests.browser.people import Person, chromium, person
from tests.federation.nodes import Pair, RealNode, copy_pair

#: Handle → roles. The first person of each agency is also its administrator, officer, supervisor and director.
PEOPLE = {
    "carla": ["caseworker"],
    "irma": ["intake", "caseworker"],
    "sara": ["supervisor"],
    "adam": ["administrator"],
    "aldo": ["auditor"],
    "vera": ["volunteer"],
}
#: Of these the desk has members.
MEMBERS = ("carla", "irma", "sara")
PROFILE = {
    "services": [1121, 1206],
    "languages": ["en", "pcm"],
    "areas": ["Nowhere"],
    "opening": [{"weekday": day, "opens": 0, "closes": 1440} for day in range(7)],
    "telephone": "+39 055 0000 000",
}


CLOSED = {"opening": [{"weekday": 0, "opens": 1, "closes": 2}], "telephone": "+39 055 0000 999"}


class Staffed:
    """A running node and its people, each with a session. `known` is what another one of the same people knew."""

    def __init__(self, node: RealNode, known: dict[str, dict[str, str]] | None = None) -> None:
        self.node = node
        self.address = node.address.replace("127.0.0.1", "localhost")
        known = known or {"secrets": {}, "cookies": {}, "ids": {}}
        self.secrets, self.cookies, self.ids = known["secrets"], known["cookies"], known["ids"]
        self.codes: dict[str, list[str]] = {}

    def known(self) -> dict[str, dict[str, str]]:
        return {"secrets": self.secrets, "cookies": self.cookies, "ids": self.ids}

    def add(self, handle: str, roles: list[str], *, joins: bool, signs_in: bool = True) -> None:
        """Somebody is invited, enrolled, a member of the desk, signed in."""
        admin = self.node.client
        invited = admin.post("/api/v1/staff", {"handle": handle, "roles": roles})
        self.ids[handle] = invited["id"]
        answer = self.node.stranger().post(
            "/api/v1/enrolment", {"secret": invited["enrol_secret"], "passphrase": passphrase(handle)}
        )
        self.secrets[handle] = parse_qs(urlsplit(answer["totp_uri"]).query)["secret"][0]
        if joins:
            admin.post(f"/api/v1/desks/{self.node.desk}/members", {"staff_id": invited["id"]})
        if signs_in:
            self.cookies[handle] = str(self.client(handle).cookie)

    def client(self, handle: str) -> Client:
        """The API as this person. The first time she signs in; her code is used up then."""
        client = self.node.stranger()
        if handle in self.cookies:
            client.cookie = self.cookies[handle]
            return client
        body = {
            "handle": handle,
            "passphrase": passphrase(handle),
            "code": one_time_code(self.secrets[handle]),
        }
        client.post("/api/v1/session", body)
        return client

    def code(self, handle: str) -> str:
        """A recovery code: an authenticator's would make the next sign-in wait for half a minute."""
        if not self.codes.get(handle):
            self.codes[handle] = self.client(handle).post("/api/v1/session/codes")["codes"]
        return self.codes[handle].pop()


def passphrase(handle: str) -> str:
    return f"invented words for {handle}"


class Network:
    """Lantern refers, Harbour receives."""

    def __init__(self, root: Path) -> None:
        self.nodes, known = copy_pair(root, "network", further=employ)
        self.lantern, self.harbour = (Staffed(node, of) for node, of in zip(self.nodes, known, strict=True))


def employ(nodes: Pair) -> list[Any]:
    """The people of both, and what their desks say of themselves."""
    for node in nodes:
        node.client.post(f"/api/v1/desks/{node.desk}/profile", PROFILE)
    # Before anybody looks at the desks: what is new there is asked for once in five minutes.
    nodes[1].client.post("/api/v1/desks", {"name": "Seldom open", "profile": CLOSED})
    both = [Staffed(node) for node in nodes]
    for staffed in both:
        for handle, roles in PEOPLE.items():
            staffed.add(handle, roles, joins=handle in MEMBERS)
    return [staffed.known() for staffed in both]


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    made = Network(tmp_path_factory.mktemp("network"))
    yield made
    for node in made.nodes:
        node.end()
        node.log.close()


class Duty(Network):
    """An NGO and a liaison's duty desk, with few people. The NGO's mail server is named, and not there."""

    def __init__(self, root: Path) -> None:
        self.nodes, known = copy_pair(root, "duty", ("NGO", "LawEnforcement"), employ_few)
        self.lantern, self.harbour = (Staffed(node, of) for node, of in zip(self.nodes, known, strict=True))


#: Many roles and no desk: whoever is of none has nothing of it, whatever else she may.
EVERYWHERE = ["caseworker", "intake", "supervisor", "director", "liaison", "volunteer", "auditor", "administrator"]


def employ_few(nodes: Pair) -> list[Any]:
    for node in nodes:
        node.client.post(f"/api/v1/desks/{node.desk}/profile", PROFILE)
    lantern, harbour = both = [Staffed(node) for node in nodes]
    lantern.add("carla", ["caseworker"], joins=True)
    lantern.add("ines", ["intake"], joins=True)
    lantern.add("vera", ["volunteer"], joins=False)
    lantern.add("sara", ["supervisor"], joins=True)
    harbour.add("dora", ["liaison"], joins=True)
    harbour.add("dino", ["liaison"], joins=True)
    harbour.add("ines", ["intake"], joins=True)
    lantern.add("adam", ["administrator"], joins=False)
    for staffed in both:
        staffed.add("olga", EVERYWHERE, joins=False)
    settings = lantern.node.folder / "staffetta.toml"
    post = '[post]\nhost = "127.0.0.1"\nport = 9\nsecurity = "none"\nsender = "node@example.invalid"\n'
    settings.write_text(settings.read_text().replace("[post]\n", post))
    return [staffed.known() for staffed in both]


@pytest.fixture(scope="module")
def duty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Duty]:
    made = Duty(tmp_path_factory.mktemp("duty"))
    yield made
    for node in made.nodes:
        node.end()
        node.log.close()


@pytest.fixture
def browser() -> Browser:
    """One Chromium for all tests of this process, one context for each person in them."""
    return chromium()


Meet = Callable[..., Person]


@pytest.fixture
def meet(browser: Browser, network: Network) -> Iterator[Meet]:
    """`meet(staffed, handle, **options)`: that person at a browser of her own, already signed in."""
    met: list[Person] = []

    def at(staffed: Staffed, handle: str = "", **options: Any) -> Person:
        somebody = person(browser, staffed.address, **options)
        if handle:
            somebody.adopt(staffed.cookies[handle])
        met.append(somebody)
        return somebody

    yield at
    for somebody in met:
        somebody.leave()
