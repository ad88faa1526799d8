# SPDX-License-Identifier: Apache-2.0
"""The message types: what a node may read of a message (Specification, 6).

The header of a message carries ids, hashes, codes, dates and integers, and no field in which a text would fit: what
is written for people travels in the sealed sections. A test walks these types and refuses anything else.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from protocol.codes import (
    AlertCategory,
    AlertForm,
    AlertStatus,
    Asked,
    Basis,
    BusinessStatus,
    CardState,
    Certainty,
    ChildAge,
    Handling,
    Kind,
    Light,
    MessageType,
    Onward,
    Priority,
    Purpose,
    ReceiptStatus,
    Risk,
    Section,
    Severity,
    Source,
    Spoken,
    Status,
    Urgency,
)
from protocol.encoding import (
    ATTACHMENT_MAX_PARTS,
    BATCH_MAX_MESSAGES,
    CLOCK_AHEAD_SECONDS,
    CONTENT_MAX_BYTES,
    DAY_SECONDS,
    EXPIRY_GRACE_DAYS,
    REPLAY_HORIZON_DAYS,
    Counter,
    Hash,
    Id,
    Seconds,
    decode,
    encode,
)
from protocol.errors import RemoteError

#: Agencies that a person may name for onward sharing: more than a handful is no longer a choice of hers.
ONWARD_MAX: Final = 8
#: Files of one message; each has a descriptor of about 150 bytes in the header.
ATTACHMENTS_MAX: Final = 20
#: Due dates that a plan announces: two years of the shortest interval.
PLAN_MAX: Final = 110

Version = Literal[1]
SectionHashes = Annotated[dict[Section, Hash], msgspec.Meta(max_length=len(Section))]
Sections = Annotated[tuple[Section, ...], msgspec.Meta(min_length=1, max_length=len(Section))]


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The consent, or other legal basis, on which the sections of a message travel (Specification, 6.3)."""

    release: Id
    purposes: Annotated[tuple[Purpose, ...], msgspec.Meta(min_length=1, max_length=len(Purpose))]
    sections: Sections
    until: Seconds
    basis: Basis
    onward: Onward = Onward.NONE
    onward_to: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=ONWARD_MAX)] = ()


class AttachmentRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file as the node knows it: opaque id, number of parts, and a hash over all of them (Specification, 6.6)."""

    id: Id
    hash: Hash
    parts: Annotated[int, msgspec.Meta(ge=1, le=ATTACHMENT_MAX_PARTS)]


class Header(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
    rename={"sender": "from", "recipient": "to"},
):
    """What every message says. `from` and `to` are agency ids, `created` and `expires` unix seconds."""

    version: Version
    id: Id
    sender: Hash
    recipient: Hash
    created: Seconds
    expires: Seconds


class Threaded(Header, frozen=True, kw_only=True):
    """A message in a thread: `epoch`, `seq` and `prev` chain all that one agency sends to another in it.

    `desk` is the desk it is for. `prev` is the SHA-256 of the content before it in the chain, absent in the first.
    """

    desk: Id
    thread: Id
    epoch: Id
    seq: Counter
    priority: Priority
    prev: Hash | None = None
    due: Seconds | None = None
    consent: Claim | None = None
    sections: SectionHashes = {}
    attachments: Annotated[tuple[AttachmentRef, ...], msgspec.Meta(max_length=ATTACHMENTS_MAX)] = ()
    part_of: Id | None = None
    derived_from: Id | None = None


#: Who comes together in one referral, besides the person it is about: a family, not a convoy.
GROUP_MAX: Final = 12


class ReferralRequest(Threaded, frozen=True, kw_only=True, tag="referral.request"):
    """Asks a desk to take somebody on. Its id is the referral's id. `reply_desk` is the source's desk.

    `members`: how many others come with the person; each is told by a note of her own (Specification, 10.6).
    """

    kind: Kind
    reply_desk: Id
    needed_by: Seconds | None = None
    backstop: Hash | None = None
    members: Annotated[int, msgspec.Meta(ge=1, le=GROUP_MAX)] | None = None


class Concerning(Threaded, frozen=True, kw_only=True):
    """A message about one referral of the thread."""

    referral: Id


class ReferralUpdate(Concerning, frozen=True, kw_only=True, tag="referral.update"):
    """The target's act on a referral: the status after it, and the label beside it."""

    action: Literal["acknowledge", "accept", "reject", "start", "hold", "resume", "cancel-by-target", "label"]
    status: Status
    business_status: BusinessStatus | None = None
    resume_by: Seconds | None = None
    arrive_by: Seconds | None = None


class ReferralOutcome(Concerning, frozen=True, kw_only=True, tag="referral.outcome"):
    """How it ended at the target. What came of it for the person is sealed."""

    action: Literal["complete", "fail"]
    status: Status


class ReferralCancel(Concerning, frozen=True, kw_only=True, tag="referral.cancel"):
    """The source asks to stop. `by_withdrawal` when the node asks because consent was withdrawn."""

    by_withdrawal: bool = False


class ReferralCancelConfirm(Concerning, frozen=True, kw_only=True, tag="referral.cancel-confirm"):
    """The target has stopped."""


class ReferralVoid(Concerning, frozen=True, kw_only=True, tag="referral.void"):
    """Entered in error: the recipient erases the content and keeps the header."""


class ReferralNote(Concerning, frozen=True, kw_only=True, tag="referral.note"):
    """A note or a question; its text is sealed. `answers` names the message it answers.

    With `member` it is about another person of the referral, travels under that person's own consent, and holds her
    sections; a later one with the same `member` supersedes it.
    """

    question: bool = False
    answers: Id | None = None
    member: Id | None = None


class SectionReplace(Concerning, frozen=True, kw_only=True, tag="section.replace"):
    """Supersedes sections of an earlier message. `contact` and `safety` go as urgent and are acknowledged."""

    replaces: Id


class AttachmentPart(Concerning, frozen=True, kw_only=True, tag="attachment.part"):
    """One part of a file; its bytes are sealed in the section `attachments`. `index` counts from 0."""

    attachment: Id
    index: Annotated[int, msgspec.Meta(ge=0, le=ATTACHMENT_MAX_PARTS - 1)]
    parts: Annotated[int, msgspec.Meta(ge=1, le=ATTACHMENT_MAX_PARTS)]


class Marking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may see it, what may be done with it, how far it may be relied on (TLP 2.0, PAP, Europol, 4x4)."""

    tlp: Light
    pap: Light
    handling: Handling
    source: Source
    grade: Annotated[int, msgspec.Meta(ge=1, le=4)]


class AlertRaise(Threaded, frozen=True, kw_only=True, tag="alert.raise"):
    """Tells a liaison. Its id is the alert's id; what, where and when are sealed. `test`: nothing is, for nobody.

    `review_by`: one person acted alone in an emergency, and a second one looks at it by then.
    """

    form: AlertForm
    category: AlertCategory
    urgency: Urgency
    severity: Severity
    certainty: Certainty
    asked: Asked
    marking: Marking
    reply_desk: Id
    deliver_by: Seconds
    test: bool = False
    review_by: Seconds | None = None


class About(Threaded, frozen=True, kw_only=True):
    """A message about one alert."""

    alert: Id


class AlertSeen(About, frozen=True, kw_only=True, tag="alert.seen"):
    """Somebody has opened it. That is not an acknowledgement."""

    at: Seconds


class AlertAck(About, frozen=True, kw_only=True, tag="alert.ack"):
    """A person has acknowledged it; to a test, the node."""

    at: Seconds


class AlertUpdate(About, frozen=True, kw_only=True, tag="alert.update"):
    """An act of either side, and the status after it. Texts and reasons are sealed."""

    action: Literal["accept", "refuse", "act", "no-action", "close", "ask", "answer", "approve"]
    status: AlertStatus


class AlertCancel(About, frozen=True, kw_only=True, tag="alert.cancel"):
    """The sender asks to stop."""


class AlertCancelConfirm(About, frozen=True, kw_only=True, tag="alert.cancel-confirm"):
    """The receiver has stopped."""


class ConsentWithdraw(Threaded, frozen=True, kw_only=True, tag="consent.withdraw"):
    """A release has ended by the person's wish. The node locks what came under it at once.

    `erase_from`: from this time the erasure she asked for is final (absent when she did not ask for one).
    """

    release: Id
    by_person: bool
    erase: bool
    do_not_contact: bool
    erase_from: Seconds | None = None


class ConsentLocked(Threaded, frozen=True, kw_only=True, tag="consent.locked"):
    """The node's answer to a withdrawal: nobody here reads these messages any more."""

    release: Id
    withdraw: Id
    at: Seconds


class ConsentErased(Threaded, frozen=True, kw_only=True, tag="consent.erased"):
    """A person's answer to a withdrawal: what was erased, what is kept. The law that makes them keep it is sealed.

    `erased` and `kept` count sealed sections. `backups_until`: when the last backup that holds them is gone.
    """

    release: Id
    withdraw: Id
    at: Seconds
    erased: Counter
    kept: Counter
    backups_until: Seconds


class FollowupPlan(Concerning, frozen=True, kw_only=True, tag="followup.plan"):
    """The follow-ups that the target has planned; both ends watch these dates."""

    plan: Id
    dates: Annotated[tuple[Seconds, ...], msgspec.Meta(min_length=1, max_length=PLAN_MAX)]
    risk: Risk


class FollowupReport(Concerning, frozen=True, kw_only=True, tag="followup.report"):
    """One follow-up was done. That it was is in the header, what came of it is sealed."""

    plan: Id
    ordinal: Counter
    at: Seconds
    ends_plan: bool = False


class BackstopCard(Threaded, frozen=True, kw_only=True, tag="backstop.card"):
    """Kept by a backstop for the day on which the sender falls silent (Specification, 12.5).

    `due`, of every threaded message, is here the next follow-up. How she can be reached is sealed, and absent when only
    the date or the state has changed. `reply_desk` is the sender's desk.
    """

    state: CardState
    reply_desk: Id


class FollowupOverdue(Header, frozen=True, kw_only=True, tag="followup.overdue"):
    """To the backstop of a thread: a follow-up that the agency `about` does has been missed. Whose is not said."""

    about: Hash
    due: Seconds


class ThreadResync(Threaded, frozen=True, kw_only=True, tag="thread.resync"):
    """Asks to send again what is missing in the recipient's chain of `missing_epoch`, from position `missing_from`."""

    missing_epoch: Id
    missing_from: Counter


class Hello(Header, frozen=True, kw_only=True, tag="hello"):
    """A sign of life: deliver what you hold. `bundle_at` is the time of the sender's newest key bundle.

    `retired`: the last one. Nobody there answers any more, and nothing is kept there (Specification, 12.7).
    """

    epoch: Id
    bundle_at: Seconds
    retired: bool = False


class Resume(Header, frozen=True, kw_only=True, tag="resume"):
    """The sender was restored from a backup taken at `since` and asks for what it has received after that."""

    epoch: Id
    since: Seconds


#: A question is about one person or a family, never about a group that somebody could recognise.
CAPACITY_MAX: Final = 12
_People = Annotated[int, msgspec.Meta(ge=0, le=CAPACITY_MAX)]


class CapacityAsk(Header, frozen=True, kw_only=True, tag="capacity.ask"):
    """Could you take somebody? Names nobody. `day` is when, `service` an Open Eligibility id."""

    desk: Id
    reply_desk: Id
    service: Annotated[int, msgspec.Meta(ge=0, le=99_999)]
    day: Seconds
    priority: Priority
    adults: _People
    children: Annotated[tuple[ChildAge, ...], msgspec.Meta(max_length=CAPACITY_MAX)] = ()
    language: Spoken | None = None


class CapacityAnswer(Header, frozen=True, kw_only=True, tag="capacity.answer"):
    """The answer to the question `asks`; it counts until `until`. `places` if there is more to say than yes."""

    asks: Id
    available: bool
    until: Seconds
    places: _People | None = None


class ReceiptEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What became of one message: `message` and `content` hash name it, `at` is when it was committed.

    `code` is one of the stable refusal codes of Specification, 8.4, as its index there.
    """

    message: Id
    content: Hash
    envelope: Id
    status: ReceiptStatus
    at: Seconds
    code: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None


class Receipt(Header, frozen=True, kw_only=True, tag="receipt"):
    """Acknowledges messages after they were committed. Signed under a label of its own."""

    entries: Annotated[tuple[ReceiptEntry, ...], msgspec.Meta(min_length=1, max_length=BATCH_MAX_MESSAGES)]


Content = (
    ReferralRequest
    | ReferralUpdate
    | ReferralOutcome
    | ReferralCancel
    | ReferralCancelConfirm
    | ReferralVoid
    | ReferralNote
    | SectionReplace
    | AttachmentPart
    | AlertRaise
    | AlertSeen
    | AlertAck
    | AlertUpdate
    | AlertCancel
    | AlertCancelConfirm
    | ConsentWithdraw
    | ConsentLocked
    | ConsentErased
    | FollowupPlan
    | FollowupReport
    | FollowupOverdue
    | BackstopCard
    | ThreadResync
    | CapacityAsk
    | CapacityAnswer
    | Hello
    | Resume
    | Receipt
)

#: Types that are issued again until they are answered, whatever the state of the peer: they protect a person.
NEVER_EXPIRE: Final = frozenset(
    {
        MessageType.CONSENT_WITHDRAW,
        MessageType.CONSENT_LOCKED,
        MessageType.CONSENT_ERASED,
        MessageType.REFERRAL_CANCEL,
        MessageType.REFERRAL_VOID,
        MessageType.REFERRAL_UPDATE,
        MessageType.REFERRAL_OUTCOME,
        MessageType.FOLLOWUP_PLAN,
        MessageType.FOLLOWUP_REPORT,
        MessageType.BACKSTOP_CARD,
        MessageType.ALERT_CANCEL,
    }
)


class Peek(msgspec.Struct, frozen=True, rename={"sender": "from", "recipient": "to"}):
    """The least that must be known of a message of an unknown type, to answer it with `unsupported-type`."""

    type: MessageType
    id: Id
    sender: Hash
    recipient: Hash
    created: Seconds
    expires: Seconds


_CONTENT: Final[msgspec.json.Decoder[Content]] = msgspec.json.Decoder(Content)
_PEEK: Final = msgspec.json.Decoder(Peek)
SUPPORTED: Final = frozenset(MessageType(kind.__struct_config__.tag) for kind in Content.__args__)


def type_of(content: Content) -> MessageType:
    """The code of a message's type."""
    return MessageType(str(content.__struct_config__.tag))


def subject_of(content: Content | Peek | Header) -> str | None:
    """The referral or the alert that a message begins or is about; None for one that is about neither."""
    if isinstance(content, (ReferralRequest, AlertRaise)):
        return content.id
    found: str | None = getattr(content, "referral", None) or getattr(content, "alert", None)
    return found


def pack(content: Content) -> bytes:
    """Return the canonical bytes of a header."""
    return encode(content)


def parse(raw: bytes) -> Content | Peek:
    """Parse a header strictly; a type that version 1 names and this program does not know comes back as `Peek`."""
    try:
        return decode(raw, _CONTENT, CONTENT_MAX_BYTES)
    except RemoteError as refusal:
        if refusal.code != "malformed":
            raise
        peek = _peek(raw)
        if peek is None or peek.type in SUPPORTED:
            raise
        return peek


def _peek(raw: bytes) -> Peek | None:
    try:
        return _PEEK.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def check_times(content: Content | Peek, now: int) -> None:
    """Refuse what is outside the replay horizon, from the future, or long expired (Specification, 7.4, step 15).

    What protects a person is never too old: a withdrawal has to reach an agency that was off for half a year. Replayed,
    it changes nothing, and its place in the chain is taken.
    """
    kind = content.type if isinstance(content, Peek) else type_of(content)
    oldest, latest = now - REPLAY_HORIZON_DAYS * DAY_SECONDS, content.expires + EXPIRY_GRACE_DAYS * DAY_SECONDS
    if kind not in NEVER_EXPIRE and (content.created < oldest or latest < now):
        raise RemoteError("expired", "The message is too old. Send it again as a new one.")
    if content.created > now + CLOCK_AHEAD_SECONDS or content.expires <= content.created:
        raise RemoteError("clock", "The message is dated in the future. Set the clock of the sending node.")
