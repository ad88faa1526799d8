# SPDX-License-Identifier: Apache-2.0
"""A liaison answers and never asks: every pair of agency and message, what the node does with it, what is counted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, find, settings
from sqlalchemy import func, select

from node.casework import apply, firewall
from node.storage.rows import Pending
from node.storage.tables import metadata
from protocol import messages
from protocol.codes import AgencyType, MessageType, Role
from protocol.directory import Directory
from protocol.errors import LocalError, RemoteError
from tests.protocol.strategies import MESSAGES, message
from tests.world import START, Agency, make_agency, meet, refer, settle_all

#: The first message that is made will do: it need not be the smallest.
ANY = settings(phases=[Phase.generate], max_examples=5, database=None, suppress_health_check=list(HealthCheck))
POLICE = AgencyType.LAW_ENFORCEMENT
#: Promise 9, written down a second time: what a liaison says is an answer, or keeps the line in order.
ANSWERS = {
    "referral.update",
    "referral.outcome",
    "referral.cancel-confirm",
    "referral.note",
    "alert.seen",
    "alert.ack",
    "alert.update",
    "alert.cancel-confirm",
    "consent.locked",
    "consent.erased",
    "thread.resync",
    "resume",
    "hello",
    "receipt",
}
TO_POLICE = {"alert.raise", "alert.update", "alert.cancel"}
FROM_POLICE = {"alert.seen", "alert.ack", "alert.cancel-confirm"}


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> tuple[Agency, Agency]:
    """Two agencies that have met; nothing is written to them here."""
    folder = tmp_path_factory.mktemp("met")
    two = make_agency(folder, "Lantern"), make_agency(folder, "Harbour")
    meet(*two)
    return two


def wanted(sender: AgencyType, recipient: AgencyType, kind: MessageType) -> bool:
    if sender is POLICE:
        return kind in ANSWERS
    return kind not in FROM_POLICE and (kind not in TO_POLICE or recipient is POLICE)


def test_every_pair_of_agency_and_message() -> None:
    for sender, recipient, kind in product(AgencyType, AgencyType, MessageType):
        assert firewall.may_send(sender, recipient, kind) == wanted(sender, recipient, kind), (sender, recipient, kind)


def test_there_is_no_message_that_asks_about_anybody() -> None:
    """`capacity.ask` asks for a place and names nobody; nothing else asks, and a liaison may not send it."""
    asking = [kind for kind in MessageType if kind.endswith(".ask") or "query" in kind or "search" in kind]
    assert asking == [MessageType.CAPACITY_ASK]
    assert not any(firewall.may_send(POLICE, other, MessageType.CAPACITY_ASK) for other in AgencyType)


def counts(db: Any) -> dict[str, int]:
    return {t.name: db.execute(select(func.count()).select_from(t)).scalar_one() for t in metadata.sorted_tables}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: str(kind.__struct_config__.tag))
def test_the_node_refuses_what_the_table_has_not_and_writes_nothing(
    met: tuple[Agency, Agency], kind: type[Any]
) -> None:
    """The same message from every kind of agency, to a node of every kind; a made-up one, with our ids in it."""
    here, peer = met
    made = find(message(kind), lambda _: True, settings=ANY)
    content = msgspec.structs.replace(made, sender=peer.id, recipient=here.id)
    member = here.here.directory.members[peer.id]

    def attempt(db: Any, ours: AgencyType, theirs: AgencyType) -> str:
        known = {peer.id: replace(member, peer=replace(member.peer, type=theirs))}
        node = replace(here.here, type=ours, directory=Directory(known))
        before = counts(db)
        try:
            apply.apply(db, node, START, content, b"", Pending())
        except RemoteError as refused:
            assert counts(db) == before
            return refused.code
        return ""

    for ours, theirs in product((AgencyType.NGO, POLICE), (AgencyType.NGO, AgencyType.HEALTH, POLICE)):
        if not wanted(theirs, ours, messages.type_of(content)):
            assert here.store.read(attempt, ours, theirs) == "not-permitted", (ours, theirs)


def test_each_attempt_is_counted_and_shown_to_who_answers_for_it(with_liaison: tuple[Agency, Agency]) -> None:
    ngo, police = with_liaison
    for _ in range(3):
        refer(police, ngo)
    settle_all((ngo, police), START)
    counted = ngo.store.read(firewall.refused, ngo.actor, START)
    assert [(row["agency"], row["type"], row["code"], row["count"]) for row in counted] == [
        ("Harbour", "referral.request", "not-permitted", 3)
    ]
    assert counted[0]["last_at"] == START
    assert ngo.store.read(firewall.refused, ngo.actor, START + timedelta(days=91)) == []
    for role in Role:
        who = replace(ngo.actor, roles=frozenset({role}))
        if role in (Role.SUPERVISOR, Role.ADMINISTRATOR):
            assert ngo.store.read(firewall.refused, who, START)
        else:
            with pytest.raises(LocalError) as refused:
                ngo.store.read(firewall.refused, who, START)
            assert refused.value.code == "forbidden"
