# SPDX-License-Identifier: Apache-2.0
"""Vectors of Specification, 13.8: headers of alerts, each with the one thing that is wrong with it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from protocol import messages
from protocol.codes import (
    AlertCategory,
    AlertForm,
    Asked,
    Basis,
    Certainty,
    Handling,
    Light,
    Onward,
    Priority,
    Purpose,
    Section,
    Severity,
    Source,
    Urgency,
)
from protocol.encoding import encode
from tests.make_vectors import DAY, HARBOUR, LANTERN, NOW, OTHER, number

HASHES = {section: number(section) * 2 for section in Section}
PLACE, PSEUDONYM, IDENTIFIED = AlertForm


def claim(**changes: Any) -> messages.Claim:
    """What she has released: for the police, for a week."""
    fields: dict[str, Any] = {
        "release": number("release for an alert"),
        "purposes": (Purpose.LAW_ENFORCEMENT,),
        "sections": (Section.IDENTITY, Section.NARRATIVE),
        "until": NOW + 7 * DAY,
        "basis": Basis.CONSENT,
    }
    return messages.Claim(**(fields | changes))


def raised(form: AlertForm = IDENTIFIED, *sections: Section, **changes: Any) -> messages.AlertRaise:
    """An alert from Lantern to Harbour."""
    fields: dict[str, Any] = {
        "version": 1,
        "id": number("alert"),
        "sender": LANTERN.agency,
        "recipient": HARBOUR.agency,
        "created": NOW,
        "expires": NOW + 30 * DAY,
        "desk": HARBOUR.desk,
        "thread": number("alert thread"),
        "epoch": number("epoch"),
        "seq": 1,
        "priority": Priority.EMERGENCY,
        "consent": claim(),
        "sections": {section: HASHES[section] for section in sections or (Section.IDENTITY, Section.NARRATIVE)},
        "form": form,
        "category": AlertCategory.IMMEDIATE_DANGER,
        "urgency": Urgency.IMMEDIATE,
        "severity": Severity.EXTREME,
        "certainty": Certainty.LIKELY,
        "asked": Asked.ACT_NOW,
        "marking": messages.Marking(tlp=Light.RED, pap=Light.RED, handling=Handling.H2, source=Source.B, grade=2),
        "reply_desk": LANTERN.desk,
        "deliver_by": NOW + 3 * DAY,
    }
    return messages.AlertRaise(**(fields | changes))


def case(about: str, content: messages.AlertRaise, code: str = "") -> dict[str, Any]:
    """One vector of kind `alert`."""
    made: dict[str, Any] = {"kind": "alert", "about": about, "now": NOW}
    if code:
        made["refuse"] = {"code": code, "public": code}
    else:
        made["accept"] = {"form": content.form, "basis": None if content.consent is None else content.consent.basis}
    made["input"] = base64.b64encode(encode(content)).decode()
    return made


def alerts() -> dict[str, Callable[[], dict[str, Any]]]:
    """Everything about the header of one alert. A name says what is wrong with it."""
    alone = claim(basis=Basis.VITAL_INTERESTS)
    service = (Purpose.LAW_ENFORCEMENT, Purpose.REFERRAL)
    every = (Section.CONTACT, Section.IDENTITY, Section.NARRATIVE, Section.SAFETY)
    return {
        "accept-alert-that-names-nobody": lambda: case(
            "No claim, one section.", raised(PLACE, Section.NARRATIVE, consent=None)
        ),
        "accept-alert-test": lambda: case(
            "Says nothing of anybody.", raised(PLACE, consent=None, sections={}, test=True)
        ),
        "accept-alert-with-a-pseudonym": lambda: case("On her own release.", raised(PSEUDONYM)),
        "accept-alert-that-identifies": lambda: case(
            "All four sections of its form.", raised(IDENTIFIED, *every, consent=claim(sections=every))
        ),
        "accept-alert-one-person-acted-alone": lambda: case(
            "A second person looks at it within a day.", raised(consent=alone, review_by=NOW + DAY)
        ),
        "refuse-alert-that-names-nobody-with-an-identity": lambda: case(
            "A section that its form does not have.", raised(PLACE, consent=None), "section-not-covered"
        ),
        "refuse-alert-that-names-nobody-on-a-claim": lambda: case(
            "Nothing in it is anybody's to release.", raised(PLACE, Section.NARRATIVE), "not-permitted"
        ),
        "refuse-alert-with-a-pseudonym-and-a-telephone": lambda: case(
            "`contact` belongs to another form.",
            raised(PSEUDONYM, Section.CONTACT, Section.IDENTITY, Section.NARRATIVE, consent=claim(sections=every)),
            "section-not-covered",
        ),
        "refuse-alert-with-a-health-section": lambda: case(
            "A section of no form.",
            raised(
                IDENTIFIED, Section.HEALTH, Section.IDENTITY, Section.NARRATIVE, consent=claim(sections=tuple(Section))
            ),
            "section-not-covered",
        ),
        "refuse-alert-that-identifies-without-an-identity": lambda: case(
            "A form says what it is.", raised(IDENTIFIED, Section.NARRATIVE), "section-not-covered"
        ),
        "refuse-alert-that-identifies-without-a-claim": lambda: case(
            "No basis.", raised(consent=None), "consent-missing"
        ),
        "refuse-alert-on-a-consent-for-a-service": lambda: case(
            "It rides on a consent for a service.", raised(consent=claim(purposes=service)), "purpose-not-covered"
        ),
        "refuse-alert-that-may-be-passed-on": lambda: case(
            "Onward sharing.",
            raised(consent=claim(onward=Onward.NAMED, onward_to=(OTHER.agency,))),
            "not-permitted",
        ),
        "refuse-alert-released-for-31-days": lambda: case(
            "A release for one matter.", raised(consent=claim(until=NOW + 31 * DAY)), "not-permitted"
        ),
        "refuse-alert-without-consent-for-8-days": lambda: case(
            "Another basis than consent.",
            raised(consent=claim(basis=Basis.LEGAL_OBLIGATION, until=NOW + 8 * DAY)),
            "not-permitted",
        ),
        "refuse-alert-alone-on-a-consent": lambda: case(
            "Her release needs no second person.", raised(review_by=NOW + DAY), "not-permitted"
        ),
        "refuse-alert-alone-without-an-emergency": lambda: case(
            "Only a life at stake.",
            raised(consent=alone, review_by=NOW + DAY, urgency=Urgency.EXPECTED),
            "not-permitted",
        ),
        "refuse-alert-alone-for-two-days": lambda: case(
            "Looked at within a day.", raised(consent=alone, review_by=NOW + 2 * DAY), "not-permitted"
        ),
        "refuse-alert-after-its-release": lambda: case(
            "Checked when it arrives.", raised(consent=claim(until=NOW)), "consent-expired"
        ),
        "refuse-alert-with-a-section-she-kept": lambda: case(
            "The claim names less than the message holds.",
            raised(IDENTIFIED, *every),
            "section-not-covered",
        ),
        "refuse-alert-test-that-says-something": lambda: case(
            "A test has no record.", raised(PLACE, Section.NARRATIVE, consent=None, test=True), "not-permitted"
        ),
    }
