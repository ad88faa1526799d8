# SPDX-License-Identifier: Apache-2.0
"""Everything that is held about one person, for herself: to be read, printed, or taken along as a file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from node.casework import cases, consents, contact, programmes, show
from node.office import audit
from node.office.actor import Actor
from node.storage.here import Here


def everything(db: Connection, here: Here, actor: Actor, now: datetime, *, case_id: str) -> dict[str, Any]:
    """What is known of her, what was sent and received, who may have what, what was written of each follow-up.

    The trail knows that it was made.
    Of others who came along in a referral nothing is in it: theirs is theirs to ask for.
    """
    found = cases.read_case(db, here, actor, case_id)
    threads = {thread["id"] for thread in found["threads"]}
    listed = show.list_referrals(db, here, actor, now, include_ended=True)
    opened = [show.show(db, here, actor, now, referral_id=r["id"]) for r in listed if r["thread"] in threads]
    agreed = consents.show_consents(db, actor, case_id)
    others = consents.whose(db, here, actor, [release["id"] for release in agreed])
    audit.record(db, now, actor.staff_id, "case.export", case_id)
    return {
        "case": {name: found[name] for name in ("id", "opened_at", "closed_at", "risk", "do_not_contact")},
        "sections": decoded(found["sections"]),
        "referrals": [
            {
                **{name: value for name, value in shown.items() if name not in ("members", "files")},
                "sections": decoded(shown["sections"]),
                "said": [{**entry, "sections": decoded(entry["sections"])} for entry in shown["said"]],
                "files": [file["name"] for message in shown["files"] for file in message.get("files", [])],
            }
            for shown in opened
        ],
        "followups": contact.reports(db, here, actor, case_id),
        "told_where": None
        if found["stays_at"] is None or found["erased_at"]
        else programmes.told_where(db, here, actor, case_id),
        "consents": [release for release in agreed if release["id"] not in others],
    }


def decoded(sections: Mapping[Any, Any]) -> dict[str, Any]:
    """Sections as values."""
    return {str(name): msgspec.json.decode(raw) for name, raw in sections.items()}
