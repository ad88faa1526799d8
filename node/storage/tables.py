# SPDX-License-Identifier: Apache-2.0
"""Every table of a node, the same on SQLite and PostgreSQL.

What is personal is only ever in a column that ends in `_sealed`, and only in sealed form. The
rest is what a node has to know while nobody is signed in: agencies, desks, types, states, dates. Ids and hashes are
lower-case hexadecimal text, times are UTC (`UtcDateTime`), lists of codes are JSON text.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from node.storage.types import UtcDateTime
from protocol.codes import (
    AgencyType,
    AlertCategory,
    AlertForm,
    AlertStatus,
    Basis,
    BusinessStatus,
    CardState,
    ConsentState,
    Kind,
    MessageType,
    Onward,
    Priority,
    ReceiptStatus,
    Risk,
    Status,
    Urgency,
)
from protocol.directory import Standing

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows only in a column of exactly this type.
_Number = BigInteger().with_variant(Integer, "sqlite")


class Delivery(StrEnum):
    """Where one of our own messages is. Only `queued` and `sent` are in the outbox; the others are ends."""

    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    UNREADABLE = "unreadable"
    RESEAL_NEEDED = "reseal-needed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    WITHHELD = "withheld"


class Arrival(StrEnum):
    """Where a message from a peer is: applied, waiting for one before it in its chain, or refused and kept aside."""

    APPLIED = "applied"
    WAITING = "waiting"
    QUARANTINED = "quarantined"


class Side(StrEnum):
    """Which party of a referral we are."""

    SOURCE = "source"
    TARGET = "target"


class FollowupKind(StrEnum):
    """What an occurrence is for."""

    CONTACT = "contact"
    DATE = "date"


class ChannelKind(StrEnum):
    """How a channel reaches somebody: by e-mail, or by a service that apprise knows."""

    MAIL = "mail"
    SERVICE = "service"


class Place(StrEnum):
    """Where the bytes of a part of a file are: with its row, in the depot, or erased."""

    DATABASE = "database"
    DEPOT = "depot"
    GONE = "gone"


class Lane(StrEnum):
    """What waits for what in the outbox: alerts for nothing, bulk for everything else. Stored as its index."""

    ALERT = "alert"
    NORMAL = "normal"
    BULK = "bulk"
    FILES = "files"


def lane_number(lane: Lane) -> int:
    """Lanes are claimed in this order."""
    return _LANES[lane]


_LANES: Final = {lane: number for number, lane in enumerate(Lane)}


def _one_of(column: str, values: Iterable[str], *, often: bool = False) -> CheckConstraint:
    """A closed list. `often`: rows come in quantity, and SQLite makes the list of an IN anew for each of them, which
    was nearly half of an insert into `messages` or `referrals` (measured).
    """
    if often:
        return CheckConstraint(" OR ".join(f"{column} = '{value}'" for value in values), name=column)
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index of only the rows that are still open, so that it does not grow with what is finished.

    SQLite uses it only for a query that says exactly `where`: write such a query with the constants below, or with a
    column's `is_(…)`, which SQLite has as `IS 0` and PostgreSQL as `IS false`.
    """
    on_postgresql = where.replace(" IS 0", " IS false").replace(" IS 1", " IS true")
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(on_postgresql))


#: For queries that are to use a partial index.
IS_WAITING = text("messages.state = 'waiting'")
IS_IN_DATABASE = text("attachments.place = 'database'")
IS_IN_DEPOT = text("attachments.place = 'depot'")
IS_PERMITTING = text("releases.state IN ('ConsentGiven', 'RenewedConsentGiven')")


def _id(name: str = "id", *, nullable: bool = False) -> Column[str]:
    return Column(name, String(32), nullable=nullable)


def _hash(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, String(64), nullable=nullable)


settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

agencies = Table(
    "agencies",
    metadata,
    Column("agency", String(64), primary_key=True),
    Column("name", String(120), nullable=False),
    Column("type", String(40), nullable=False),
    Column("standing", String(16), nullable=False),
    Column("bundle", LargeBinary, nullable=False),
    Column("met_at", UtcDateTime, nullable=False),
    Column("verified_at", UtcDateTime),
    Column("verified_by", String(32)),
    Column("confirmed_by_peer_at", UtcDateTime),
    Column("heard_at", UtcDateTime),
    Column("bundle_fetched_at", UtcDateTime),
    # Back-off is by destination: one unreachable agency is tried once, however much waits for it.
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("retry_at", UtcDateTime),
    # The difference between the peer's signed time and ours in a round trip under five minutes.
    Column("clock_offset_seconds", Integer),
    Column("clock_seen_at", UtcDateTime),
    Column("peer_epoch", String(32)),
    Column("silent_after_hours", Integer, nullable=False, server_default=text("72")),
    # It has no node: written down by our people, reached by telephone and on paper. It has no bundle and is `blocked`,
    # so that nothing is ever exchanged with it, not even by a program that does not know this column.
    Column("outside", Boolean, nullable=False, server_default=text("false")),
    # When it said, signed, that its node has retired: nobody there will ever answer again.
    Column("retired_at", UtcDateTime),
    _one_of("type", AgencyType),
    _one_of("standing", Standing),
)

# The desks of agencies without a node, as our own people know them.
outside_desks = Table(
    "outside_desks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("agency", ForeignKey("agencies.agency"), nullable=False, index=True),
    Column("name", String(120), nullable=False),
    Column("profile", Text, nullable=False),
    # Taken from the list: what is under way with it goes on.
    Column("closed_at", UtcDateTime),
)

invites = Table(
    "invites",
    metadata,
    Column("id", String(32), primary_key=True),
    _hash("secret_hash"),
    Column("agency_type", String(40), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", String(32), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    Column("used_by", String(64)),
    Column("second_uses", Integer, nullable=False, server_default=text("0")),
)

staff = Table(
    "staff",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("handle", String(40), nullable=False, unique=True),
    Column("roles", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("kem_public", LargeBinary),
    Column("sign_public", LargeBinary),
    Column("seed_salt", LargeBinary),
    Column("seed_sealed", LargeBinary),
    Column("seed_recovery_sealed", LargeBinary),
    Column("totp_sealed", LargeBinary),
    Column("totp_last_step", BigInteger, nullable=False, server_default=text("0")),
    # Hashes of the one-time codes on paper that stand in for a lost authenticator, as JSON.
    Column("codes", Text, nullable=False, server_default=text("'[]'")),
    Column("language", String(8)),
    # Her own time zone, an IANA name; NULL for her agency's.
    Column("zone", String(64)),
    # Moved to `channels`; goes with the next release, so that the one before still runs on this schema.
    Column("email_sealed", LargeBinary),
    Column("officer_certificate", LargeBinary),
    Column("enrol_hash", String(64)),
    Column("enrol_expires_at", UtcDateTime),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("retry_at", UtcDateTime),
    Column("seen_at", UtcDateTime),
    _one_of("status", ("invited", "active", "disabled")),
)

desks = Table(
    "desks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(120), nullable=False, unique=True),
    Column("profile", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
)

desk_keys = Table(
    "desk_keys",
    metadata,
    Column("key_hash", String(64), primary_key=True),
    Column("desk_id", ForeignKey("desks.id"), nullable=False, index=True),
    Column("serial", Integer, nullable=False),
    Column("public", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("retired_at", UtcDateTime),
    UniqueConstraint("desk_id", "serial"),
)

desk_wraps = Table(
    "desk_wraps",
    metadata,
    Column("key_hash", ForeignKey("desk_keys.key_hash"), nullable=False),
    # A member of staff, or `recovery` for the agency's recovery key.
    Column("holder", String(32), nullable=False, index=True),
    Column("seed_sealed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("key_hash", "holder"),
)

roster = Table(
    "roster",
    metadata,
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    Column("staff_id", ForeignKey("staff.id"), nullable=False, index=True),
    Column("serial", Integer, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("entry", LargeBinary, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("desk_id", "staff_id"),
)

# A person's passkeys: each in place of the authenticator's code, and, with her seed wrapped under what only that
# passkey can compute, in place of the passphrase too. Its name is hers, so it is sealed.
passkeys = Table(
    "passkeys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("staff_id", ForeignKey("staff.id"), nullable=False, index=True),
    Column("credential", LargeBinary, nullable=False, unique=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("name_sealed", LargeBinary, nullable=False),
    Column("seed_sealed", LargeBinary),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
)

# Hashes of challenges that a passkey has answered: each is good once. Gone when it would have lapsed anyway.
used_challenges = Table(
    "used_challenges",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("lapses_at", UtcDateTime, nullable=False, index=True),
)

# In no backup, and on PostgreSQL in no write-ahead log.
sessions = Table(
    "sessions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("staff_id", ForeignKey("staff.id"), nullable=False, index=True),
    Column("server_secret", LargeBinary, nullable=False),
    Column("seed_sealed", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("ends_at", UtcDateTime, nullable=False, index=True),
)

programmes = Table(
    "programmes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(120), nullable=False, unique=True),
    Column("funder", String(120), nullable=False, server_default=text("''")),
    Column("starts_on", String(10), nullable=False),
    Column("ends_on", String(10)),
    Column("review_on", String(10)),
    # Open Eligibility ids, JSON: what a successor should offer.
    Column("services", Text, nullable=False, server_default=text("'[]'")),
    # Our own desks and people that it pays for, ids, JSON.
    Column("desks", Text, nullable=False, server_default=text("'[]'")),
    Column("staff", Text, nullable=False, server_default=text("'[]'")),
    # The last reminder that was told, and when the next one is due.
    Column("reminded", String(16)),
    Column("next_reminder_at", UtcDateTime),
    _partial("ix_programmes_reminder", "next_reminder_at", where="next_reminder_at IS NOT NULL"),
    CheckConstraint("ends_on IS NOT NULL OR review_on IS NOT NULL", name="ends_or_review"),
)

# Sealed data of our own that no message carries: what a case says, drafts, how consent was collected, outcomes.
records = Table(
    "records",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(24), nullable=False),
    Column("subject_id", String(32), nullable=False),
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("by_staff", String(32), nullable=False),
    Column("commitments", Text, nullable=False),
    Column("body_sealed", LargeBinary, nullable=False),
    Index("ix_records_subject", "subject_id", "kind", "at"),
)

cases = Table(
    "cases",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("programme_id", ForeignKey("programmes.id"), nullable=False),
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    Column("staff_id", ForeignKey("staff.id"), nullable=False),
    Column("risk", String(8), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("do_not_contact", Boolean, nullable=False, server_default=text("false")),
    # When she was last in contact, as somebody has recorded: a try that reached nobody is none.
    Column("contact_at", UtcDateTime),
    # The agency that has taken over the responsibility, and since when.
    Column("transferred_to", String(64)),
    Column("transferred_at", UtcDateTime),
    # She does not want to be handed over; how she was told where to turn is sealed.
    Column("stays_at", UtcDateTime),
    # Closed because it turned out to be this other case's person.
    Column("merged_into", String(32)),
    # After it was closed: kept longer than the agency's date, because a person said why; or erased, its headers kept.
    Column("keep_until", UtcDateTime),
    Column("erased_at", UtcDateTime),
    _one_of("risk", Risk),
    _partial("ix_cases_open", "desk_id", "opened_at", where="closed_at IS NULL"),
    _partial("ix_cases_programme", "programme_id", where="closed_at IS NULL"),
)

# Who is kept out of a case, or of a thread that has no case here, though she belongs to its desk.
exclusions = Table(
    "exclusions",
    metadata,
    Column("subject_id", String(32), nullable=False),
    Column("staff_id", ForeignKey("staff.id"), nullable=False),
    Column("by_staff", String(32), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("subject_id", "staff_id"),
    Index("ix_exclusions_staff", "staff_id"),
)

threads = Table(
    "threads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("peer", ForeignKey("agencies.agency"), nullable=False),
    Column("case_id", ForeignKey("cases.id"), index=True),
    Column("opened_by_us", Boolean, nullable=False),
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    _id("peer_desk"),
    Column("backstop", String(64)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("open", Boolean, nullable=False, server_default=text("true")),
    # Our chain: what we sent last. Theirs: the last one applied without a gap before it.
    _id("out_epoch"),
    Column("out_seq", BigInteger, nullable=False, server_default=text("0")),
    _hash("out_hash", nullable=True),
    _id("in_epoch", nullable=True),
    Column("in_seq", BigInteger, nullable=False, server_default=text("0")),
    _hash("in_hash", nullable=True),
    Column("gap_since", UtcDateTime),
    _partial("ix_threads_peer_open", "peer", where="open IS 1"),
    _partial("ix_threads_gap", "gap_since", where="gap_since IS NOT NULL"),
)

# One signature over many messages is stored once; each message keeps its binding, place and path for evidence.
batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("sender_key", String(64), nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("agency", String(64), nullable=False),
    _id("id"),
    Column("incoming", Boolean, nullable=False),
    Column("peer", String(64), nullable=False),
    Column("type", String(24), nullable=False),
    Column("thread_id", String(32)),
    Column("referral_id", String(32)),
    Column("release_id", String(32)),
    Column("epoch", String(32)),
    Column("seq", BigInteger),
    Column("at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False),
    _hash("content_hash"),
    # What the recipient said (ours), or what we said (theirs): a duplicate is answered with exactly this.
    Column("receipt_status", String(20)),
    Column("receipt_code", SmallInteger),
    Column("receipt_at", UtcDateTime),
    Column("envelope_id", String(32)),
    Column("batch_id", String(64)),
    Column("proof", LargeBinary),
    Column("locked_at", UtcDateTime),
    _hash("body_hash"),
    Column("content", LargeBinary, nullable=False),
    PrimaryKeyConstraint("agency", "id"),
    _one_of("type", MessageType, often=True),
    _one_of("state", (*Delivery, *Arrival), often=True),
    _one_of("receipt_status", ReceiptStatus, often=True),
    Index("ix_messages_chain", "thread_id", "agency", "epoch", "seq"),
    _partial("ix_messages_release", "release_id", where="release_id IS NOT NULL"),
    _partial("ix_messages_waiting", "at", where="state = 'waiting'"),
    _partial(
        "ix_messages_aside",
        "state",
        "at",
        where="state IN ('waiting', 'quarantined', 'unreadable', 'reseal-needed', 'rejected', 'expired', 'withheld')",
    ),
)

# The sealed record of a message, apart from its row: a receipt changes the row, an erasure only this.
bodies = Table(
    "bodies",
    metadata,
    Column("content_hash", String(64), primary_key=True),
    Column("body_sealed", LargeBinary, nullable=False),
)

# Only what has not been delivered: a row goes when its receipt, or its end, is committed.
outbox = Table(
    "outbox",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("message_id", String(32), nullable=False, unique=True),
    Column("peer", String(64), nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("queued_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("lease_until", UtcDateTime),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    # Which process holds the lease: its slot is free the moment it is gone, long before the lease ends.
    Column("leased_by", SmallInteger),
    Index("ix_outbox_claim", "peer", "lane", "number"),
    Index("ix_outbox_expiry", "expires_at"),
)

# Somebody is away and a colleague covers for her. What was handed over because of it is listed, to be given back.
absences = Table(
    "absences",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("staff_id", ForeignKey("staff.id"), nullable=False),
    Column("cover_id", ForeignKey("staff.id"), nullable=False),
    Column("from_at", UtcDateTime, nullable=False),
    Column("until_at", UtcDateTime, nullable=False),
    Column("gives_back", Boolean, nullable=False),
    Column("by_staff", String(32), nullable=False),
    Column("ended_at", UtcDateTime),
    _partial("ix_absences_open", "staff_id", where="ended_at IS NULL", unique=True),
)
absence_items = Table(
    "absence_items",
    metadata,
    Column("absence_id", ForeignKey("absences.id"), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("subject_id", String(32), nullable=False),
    PrimaryKeyConstraint("absence_id", "kind", "subject_id"),
    _one_of("kind", ("case", "referral", "followup")),
)

referrals = Table(
    "referrals",
    metadata,
    # The id of the request that began it. A draft has one before it is sent.
    Column("id", String(32), primary_key=True),
    Column("thread_id", ForeignKey("threads.id"), nullable=False, index=True),
    Column("side", String(8), nullable=False),
    Column("kind", String(12), nullable=False),
    Column("priority", String(12), nullable=False),
    Column("status", String(20), nullable=False),
    Column("cancellation_requested", Boolean, nullable=False, server_default=text("false")),
    Column("held_from", String(20)),
    Column("business_status", String(24)),
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    Column("staff_id", String(32)),
    Column("release_id", String(32)),
    Column("part_of", String(32)),
    Column("requested_at", UtcDateTime),
    Column("received_at", UtcDateTime),
    Column("acknowledged_at", UtcDateTime),
    Column("decided_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("acknowledge_by", UtcDateTime),
    Column("decide_by", UtcDateTime),
    Column("resume_by", UtcDateTime),
    Column("arrive_by", UtcDateTime),
    Column("needed_by", UtcDateTime),
    # When `attention` could next change; empty once it is final. A sweep looks only at what is due.
    Column("attention_at", UtcDateTime),
    Column("attention", String(24)),
    Column("version", Integer, nullable=False, server_default=text("1")),
    _one_of("side", Side, often=True),
    _one_of("kind", Kind, often=True),
    _one_of("priority", Priority, often=True),
    _one_of("status", Status, often=True),
    _one_of("held_from", Status, often=True),
    _one_of("business_status", BusinessStatus, often=True),
    _partial("ix_referrals_desk_open", "desk_id", "priority", "decide_by", where="ended_at IS NULL"),
    _partial("ix_referrals_attention", "attention_at", where="attention_at IS NOT NULL"),
)

# One release: what one agency may get, for what, until when. `ours` says whether we collected or received it.
releases = Table(
    "releases",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("ours", Boolean, nullable=False),
    Column("case_id", ForeignKey("cases.id"), index=True),
    Column("thread_id", String(32), index=True),
    # The recipient if it is ours, else the agency that collected it.
    Column("agency", String(64), nullable=False),
    Column("purposes", Text, nullable=False),
    Column("sections", Text, nullable=False),
    Column("basis", String(24), nullable=False),
    Column("onward", String(8), nullable=False),
    Column("onward_to", Text, nullable=False),
    Column("given_at", UtcDateTime, nullable=False),
    Column("valid_until", UtcDateTime, nullable=False),
    Column("state", String(24), nullable=False),
    Column("state_at", UtcDateTime, nullable=False),
    Column("reason_record", String(32)),
    Column("approved_by", String(32)),
    _one_of("basis", Basis, often=True),
    _one_of("onward", Onward, often=True),
    _one_of("state", ConsentState, often=True),
    _partial("ix_releases_expiry", "valid_until", where="state IN ('ConsentGiven', 'RenewedConsentGiven')"),
)

release_events = Table(
    "release_events",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("release_id", ForeignKey("releases.id"), nullable=False, index=True),
    Column("state", String(24), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("by_staff", String(32)),
    Column("valid_until", UtcDateTime),
    Column("record_id", String(32)),
    _one_of("state", ConsentState),
)

# A withdrawal and what became of it at one holder: ours to follow up, or theirs for us to answer.
withdrawals = Table(
    "withdrawals",
    metadata,
    # The id of the consent.withdraw message.
    Column("id", String(32), primary_key=True),
    Column("release_id", ForeignKey("releases.id"), nullable=False, index=True),
    Column("holder", String(64), nullable=False),
    Column("thread_id", String(32), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("by_person", Boolean, nullable=False),
    Column("erase", Boolean, nullable=False),
    Column("erase_from", UtcDateTime),
    Column("do_not_contact", Boolean, nullable=False),
    Column("locked_at", UtcDateTime),
    Column("answered_at", UtcDateTime),
    Column("erased_count", Integer),
    Column("kept_count", Integer),
    Column("duty_at", UtcDateTime),
    _partial("ix_withdrawals_duty", "duty_at", where="answered_at IS NULL"),
)

followups = Table(
    "followups",
    metadata,
    Column("id", String(32), primary_key=True),
    _id("plan_id"),
    Column("ordinal", Integer, nullable=False),
    # Contact with her, or a date that must not pass unseen; what the date is stands only in a sealed record.
    Column("kind", String(8), nullable=False, server_default=text("'contact'")),
    # Our own plan for a case: the next is so many days after this one was recorded. Empty: the thread's plan says when.
    Column("every_days", Integer),
    Column("thread_id", String(32), index=True),
    Column("referral_id", String(32)),
    Column("case_id", String(32), index=True),
    # True: our people do it. False: the other end does, and we watch the clock on our own.
    Column("ours", Boolean, nullable=False),
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    Column("staff_id", String(32)),
    Column("risk", String(8), nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("reported_at", UtcDateTime),
    Column("ended", Boolean, nullable=False, server_default=text("false")),
    Column("record_id", String(32)),
    # The ladder: the highest rung passed, and when the next one is due; empty once reported.
    Column("rung", String(32)),
    Column("next_rung_at", UtcDateTime),
    Column("snoozed_until", UtcDateTime),
    UniqueConstraint("plan_id", "ordinal"),
    _one_of("kind", FollowupKind),
    _one_of("risk", Risk),
    _partial("ix_followups_due", "next_rung_at", where="next_rung_at IS NOT NULL"),
    Index("ix_followups_referral", "referral_id"),
    _partial("ix_followups_open", "desk_id", "due_at", where="ended IS 0"),
    _partial("ix_followups_case_open", "case_id", where="ended IS 0"),
)

escalations = Table(
    "escalations",
    metadata,
    Column("followup_id", ForeignKey("followups.id"), nullable=False),
    Column("rung", String(32), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("told", Boolean, nullable=False),
    PrimaryKeyConstraint("followup_id", "rung"),
)

# What a person has to do because a machine cannot. One open task of a kind for a subject.
tasks = Table(
    "tasks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("subject_id", String(64), nullable=False),
    Column("desk_id", String(32)),
    Column("staff_id", String(32)),
    Column("role", String(16)),
    Column("created_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime),
    Column("closed_at", UtcDateTime),
    Column("closed_by", String(32)),
    _partial("uq_tasks_open", "kind", "subject_id", where="closed_at IS NULL", unique=True),
    _partial("ix_tasks_open", "desk_id", "created_at", where="closed_at IS NULL"),
)

# "There is something to read." Nothing in it but for whom. One unread notice for an audience is enough.
notices = Table(
    "notices",
    metadata,
    Column("audience", String(48), primary_key=True),
    Column("first_at", UtcDateTime, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
    # Since when something is among it that cannot wait for the next half hour.
    Column("urgent_at", UtcDateTime),
)

# What one person asked and a second one has to agree to. The content is hashed, so that exactly it is approved.
approvals = Table(
    "approvals",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("subject_id", String(32), nullable=False, unique=True),
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    _hash("content_hash"),
    Column("requested_by", String(32), nullable=False),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("lapses_at", UtcDateTime, nullable=False),
    Column("approved", Boolean),
    Column("decided_by", String(32)),
    Column("decided_at", UtcDateTime),
)

# What a backstop keeps for the day on which the responsible agency falls silent; how she is reached is in its message.
cards = Table(
    "cards",
    metadata,
    _id("thread_id"),
    # True: we are responsible, the other agency is the backstop. False: we are the backstop.
    Column("ours", Boolean, nullable=False),
    Column("peer", String(64), nullable=False),
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    # Ours; of a backstop only after it has taken the person over.
    Column("case_id", String(32)),
    Column("release_id", String(32), nullable=False),
    # The message with the sealed sections that count now.
    Column("message_id", String(32), nullable=False),
    Column("state", String(12), nullable=False),
    Column("due_at", UtcDateTime),
    Column("told_at", UtcDateTime, nullable=False),
    Column("opened_at", UtcDateTime),
    Column("opened_by", String(32)),
    Column("ended", Boolean, nullable=False, server_default=text("false")),
    PrimaryKeyConstraint("thread_id"),
    _one_of("state", CardState),
    _partial("ix_cards_open", "peer", where="ended IS 0"),
    _partial("ix_cards_case", "case_id", where="ended IS 0"),
)

# How somebody is reached: her own ways, or those that a desk shares. Tried in the order of `place`.
channels = Table(
    "channels",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("staff_id", ForeignKey("staff.id"), index=True),
    Column("desk_id", ForeignKey("desks.id"), index=True),
    Column("kind", String(8), nullable=False),
    Column("place", SmallInteger, nullable=False),
    # The language of whoever entered it: a desk has none of its own.
    Column("language", String(8)),
    # An e-mail address, or the address of a service with its secrets, under the node's key for local secrets.
    Column("address_sealed", LargeBinary, nullable=False),
    Column("tried_at", UtcDateTime),
    Column("worked_at", UtcDateTime),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    _one_of("kind", ChannelKind),
    CheckConstraint("(staff_id IS NULL) <> (desk_id IS NULL)", name="owner"),
)

# To whom the one sentence went, and when it may go: one row for each person, and for each desk with ways of its own.
reach = Table(
    "reach",
    metadata,
    # `staff:` or `desk:` and the id, as in `notices`.
    Column("owner", String(40), primary_key=True),
    # Minutes of the local day; the same twice means never. Days on which it is quiet all day long, JSON.
    Column("quiet_from", SmallInteger, nullable=False, server_default=text("0")),
    Column("quiet_until", SmallInteger, nullable=False, server_default=text("0")),
    Column("quiet_days", Text, nullable=False, server_default=text("'[]'")),
    # Once a day at this minute instead of whenever something comes.
    Column("digest_at", SmallInteger),
    Column("told_at", UtcDateTime),
    Column("lease_until", UtcDateTime),
    Column("retry_at", UtcDateTime),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    CheckConstraint("quiet_from BETWEEN 0 AND 1439 AND quiet_until BETWEEN 0 AND 1439", name="quiet"),
    CheckConstraint("digest_at BETWEEN 0 AND 1439", name="digest"),
)

# Who is on duty at a desk, week after week. `day` 7 is for holidays.
duty = Table(
    "duty",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("desk_id", ForeignKey("desks.id"), nullable=False, index=True),
    Column("staff_id", ForeignKey("staff.id"), nullable=False, index=True),
    Column("day", SmallInteger, nullable=False),
    # Minutes of the local day on which it begins; a night ends on the next.
    Column("begins", SmallInteger, nullable=False),
    Column("ends", SmallInteger, nullable=False),
    # 1 is told first, 2 when she does not answer.
    Column("place", SmallInteger, nullable=False),
    CheckConstraint("day BETWEEN 0 AND 7", name="day"),
    CheckConstraint("begins BETWEEN 0 AND 1439 AND ends > begins AND ends <= begins + 1440", name="hours"),
    CheckConstraint("place BETWEEN 1 AND 2", name="place"),
)

# Replaced by `reach`; goes with the next release, so that the one before still runs on this schema.
mailings = Table(
    "mailings",
    metadata,
    Column("staff_id", ForeignKey("staff.id"), primary_key=True),
    Column("mailed_at", UtcDateTime),
    Column("lease_until", UtcDateTime),
    Column("retry_at", UtcDateTime),
    Column("failures", Integer, nullable=False, server_default=text("0")),
)

audit = Table(
    "audit",
    metadata,
    # One hash chain per process, so that many processes need not wait for one row; checkpoints join them.
    Column("chain", String(32), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String(32), nullable=False),
    Column("action", String(48), nullable=False),
    Column("subject_id", String(64), nullable=False),
    Column("basis", String(24)),
    Column("peer", String(64)),
    _hash("previous"),
    _hash("hash"),
    PrimaryKeyConstraint("chain", "seq"),
    Index("ix_audit_subject", "subject_id"),
)

# What was erased, by ids only. Kept apart from backups and applied again before a restored node opens.
erasures = Table(
    "erasures",
    metadata,
    Column("agency", String(64), nullable=False),
    Column("message_id", String(32), nullable=False),
    Column("sections", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("agency", "message_id"),
)

# An alert to a liaison, ours or to us. What, where and when are sealed in its message.
alerts = Table(
    "alerts",
    metadata,
    # The id of the alert.raise message.
    Column("id", String(32), primary_key=True),
    Column("thread_id", ForeignKey("threads.id"), nullable=False, index=True),
    Column("side", String(8), nullable=False),
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    # Who raised it, or who has taken it on.
    Column("staff_id", String(32)),
    Column("category", String(24), nullable=False),
    Column("urgency", String(12), nullable=False),
    Column("severity", String(12), nullable=False),
    Column("certainty", String(12), nullable=False),
    Column("asked", String(16), nullable=False),
    Column("marking", Text, nullable=False),
    Column("test", Boolean, nullable=False, server_default=text("false")),
    Column("status", String(16), nullable=False),
    Column("cancellation_requested", Boolean, nullable=False, server_default=text("false")),
    Column("question_open", Boolean, nullable=False, server_default=text("false")),
    Column("raised_at", UtcDateTime, nullable=False),
    Column("delivered_at", UtcDateTime),
    Column("seen_at", UtcDateTime),
    Column("acknowledged_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    # Whom to try if nobody acknowledges: “agency/desk”, chosen by the sender; and the alert that came of it.
    Column("second", String(97)),
    Column("second_id", String(32)),
    # The ladder: the last step told, and when the next one is due; empty once acknowledged.
    Column("step", String(24)),
    Column("next_step_at", UtcDateTime),
    Column("version", Integer, nullable=False, server_default=text("1")),
    _one_of("side", Side),
    _one_of("category", AlertCategory),
    _one_of("urgency", Urgency),
    _one_of("status", AlertStatus),
    _partial("ix_alerts_step", "next_step_at", where="next_step_at IS NOT NULL"),
    Index("ix_alerts_desk", "desk_id", "raised_at"),
)

# An alert that tells of somebody: its form, on which basis, who looked at it, and whether she was told. Both ends.
disclosures = Table(
    "disclosures",
    metadata,
    Column("alert_id", ForeignKey("alerts.id"), primary_key=True),
    Column("release_id", ForeignKey("releases.id"), nullable=False, index=True),
    # Ours only.
    Column("case_id", String(32)),
    Column("form", String(24), nullable=False),
    Column("basis", String(24), nullable=False),
    # One person acted alone: until when a second one looks at it, and who did.
    Column("review_by", UtcDateTime),
    Column("reviewed_at", UtcDateTime),
    Column("reviewed_by", String(32)),
    # Without her consent: until when she is told, and when she was.
    Column("tell_by", UtcDateTime),
    Column("told_at", UtcDateTime),
    # When somebody is reminded of what is missing.
    Column("due_at", UtcDateTime),
    _one_of("form", AlertForm),
    _one_of("basis", Basis),
    _partial("ix_disclosures_due", "due_at", where="due_at IS NOT NULL"),
)

# An alert to a liaison without a node, read by telephone: its codes and its clock. Who and what are sealed records.
outside_alerts = Table(
    "outside_alerts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    Column("staff_id", String(32), nullable=False),
    Column("category", String(24), nullable=False),
    Column("urgency", String(12), nullable=False),
    Column("severity", String(12), nullable=False),
    Column("certainty", String(12), nullable=False),
    Column("asked", String(16), nullable=False),
    Column("marking", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("raised_at", UtcDateTime, nullable=False),
    Column("acknowledged_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("next_step_at", UtcDateTime),
    Column("version", Integer, nullable=False, server_default=text("1")),
    _one_of("category", AlertCategory),
    _one_of("urgency", Urgency),
    _one_of("status", AlertStatus),
    _partial("ix_outside_alerts_step", "next_step_at", where="next_step_at IS NOT NULL"),
    Index("ix_outside_alerts_desk", "desk_id", "raised_at"),
)

# Whether a desk could take somebody: asked by us or of us. Nothing in it is about anybody.
capacity = Table(
    "capacity",
    metadata,
    # The id of the capacity.ask message.
    Column("id", String(32), primary_key=True),
    Column("ours", Boolean, nullable=False),
    Column("peer", ForeignKey("agencies.agency"), nullable=False),
    Column("desk_id", ForeignKey("desks.id"), nullable=False),
    _id("peer_desk"),
    Column("staff_id", String(32)),
    Column("service", Integer, nullable=False),
    Column("day", UtcDateTime, nullable=False),
    Column("priority", String(12), nullable=False),
    Column("adults", SmallInteger, nullable=False),
    Column("children", Text, nullable=False),
    Column("language", String(8)),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("answered_at", UtcDateTime),
    Column("available", Boolean),
    Column("until", UtcDateTime),
    Column("places", SmallInteger),
    _one_of("priority", Priority),
    Index("ix_capacity_desk", "desk_id", "asked_at"),
)

# Which message carries which part of a file, ours and theirs. Names and sizes are sealed in the messages.
attachments = Table(
    "attachments",
    metadata,
    Column("id", String(32), nullable=False),
    Column("part", Integer, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("agency", String(64), nullable=False),
    Column("message_id", String(32), nullable=False),
    Column("referral_id", String(32), nullable=False),
    Column("place", String(8), nullable=False, server_default=Place.DATABASE),
    PrimaryKeyConstraint("agency", "id", "part"),
    _one_of("place", Place),
    Index("ix_attachments_referral", "referral_id"),
    _partial("ix_attachments_database", "agency", "message_id", where="place = 'database'"),
    _partial("ix_attachments_depot", "agency", "message_id", where="place = 'depot'"),
)
