# SPDX-License-Identifier: Apache-2.0
"""The people of the demonstration: one for each role, enrolled over HTTP as real ones are, ready to sign in."""

from __future__ import annotations

import http.client
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from node.cli.client import Client
from node.cli.demo import DemoAgency, StepFailed, one_time_code
from node.web.api import COOKIE

#: Agency → work name → roles, and whether she belongs to the desk.
CAST: Final[dict[str, dict[str, tuple[list[str], bool]]]] = {
    "ngo": {
        "caseworker": (["caseworker"], True),
        "supervisor": (["supervisor", "caseworker"], True),
        "administrator": (["administrator"], False),
        "auditor": (["auditor"], False),
        "volunteer": (["volunteer"], False),
    },
    "shelter": {"intake": (["intake", "caseworker"], True), "director": (["director", "supervisor"], True)},
    "liaison": {"duty": (["liaison"], True)},
}
#: How many of somebody's recovery codes are printed: each signs in once, without an authenticator.
CODES_SHOWN: Final = 3


def hire(agency: DemoAgency) -> dict[str, Client]:
    """Everybody of the agency's cast is enrolled and signed in. What she signs in with is in `agency.people`."""
    clients = {}
    for handle, (roles, joins) in CAST[agency.key].items():
        invited = agency.client.post("/api/v1/staff", {"handle": handle, "roles": roles})
        passphrase = f"invented words of the {handle}"
        client = Client(agency.folder, agency.address)
        enrolled = client.post("/api/v1/enrolment", {"secret": invited["enrol_secret"], "passphrase": passphrase})
        secret = parse_qs(urlsplit(enrolled["totp_uri"]).query)["secret"][0]
        if joins:
            agency.client.post(f"/api/v1/desks/{agency.desk}/members", {"staff_id": invited["id"]})
        client.post("/api/v1/session", {"handle": handle, "passphrase": passphrase, "code": one_time_code(secret)})
        codes = client.post("/api/v1/session/codes")["codes"][:CODES_SHOWN]
        agency.people.append({"handle": handle, "roles": roles, "passphrase": passphrase, "codes": codes})
        clients[handle] = client
    return clients


def page(client: Client, path: str) -> str:
    """A page as this person's browser gets it."""
    parts = urlsplit(client.address or "")
    connection = http.client.HTTPConnection(parts.hostname or "localhost", parts.port, timeout=20)
    try:
        connection.request("GET", path, headers={"Cookie": f"{COOKIE}={client.cookie}", "Accept-Language": "en"})
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        raise StepFailed(f"The page {path} answered {response.status}.")
    return text


def second_referral(form: dict[str, Any]) -> dict[str, Any]:
    """Somebody else, so that there is something to answer on the pages."""
    return {
        "referral": {**form["referral"], "priority": "urgent"},
        "consent": {**form["consent"], "sections": ["service", "identity", "contact"]},
        "service": {
            "services": [{"id": 1121, "path": "Housing > Temporary Shelter > Emergency Shelter"}],
            "details": "A room for two for some weeks. She and her son of four would like to stay together.",
        },
        "identity": {"case_code": "BRINA-15", "age_band": "25-39", "gender": "Feminine"},
        "contact": {"contact_permitted": "survivor-will-contact-us", "preferred_language": "ro"},
    }
