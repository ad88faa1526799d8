# SPDX-License-Identifier: Apache-2.0
"""Every closed list of codes that travels in a header or is stored beside one.

Codes are compared by value and never shown: screens translate them. Sources are named at each list:
FHIR = HL7 FHIR R4 Task; Gravity = HL7 SDOH Clinical Care; HTCDS = IOM Human Trafficking Case Data Standard 2.0;
IASC = inter-agency referral form; 27560 = ISO/IEC TS 27560.
"""

from __future__ import annotations

from enum import StrEnum


class AgencyType(StrEnum):
    """HTCDS agency types."""

    NGO = "NGO"
    LAW_ENFORCEMENT = "LawEnforcement"
    HEALTH = "HealthServiceOrganisation"
    CENTRAL_GOVERNMENT = "CentralGovernmentOrganisation"
    LOCAL_GOVERNMENT = "LocalGovernmentOrganisation"
    IMMIGRATION = "ImmigrationService"
    LEGAL = "LegalService"
    CORPORATE = "CorporateBusiness"
    SCHOOL = "SchoolOrCollege"


class MessageType(StrEnum):
    """Every message type of version 1, those of later stages included, so that none has to be added to the wire."""

    REFERRAL_REQUEST = "referral.request"
    REFERRAL_UPDATE = "referral.update"
    REFERRAL_OUTCOME = "referral.outcome"
    REFERRAL_CANCEL = "referral.cancel"
    REFERRAL_CANCEL_CONFIRM = "referral.cancel-confirm"
    REFERRAL_VOID = "referral.void"
    REFERRAL_NOTE = "referral.note"
    SECTION_REPLACE = "section.replace"
    CONSENT_WITHDRAW = "consent.withdraw"
    CONSENT_LOCKED = "consent.locked"
    CONSENT_ERASED = "consent.erased"
    FOLLOWUP_PLAN = "followup.plan"
    FOLLOWUP_REPORT = "followup.report"
    FOLLOWUP_OVERDUE = "followup.overdue"
    BACKSTOP_CARD = "backstop.card"
    THREAD_RESYNC = "thread.resync"
    ALERT_RAISE = "alert.raise"
    ALERT_SEEN = "alert.seen"
    ALERT_ACK = "alert.ack"
    ALERT_UPDATE = "alert.update"
    ALERT_CANCEL = "alert.cancel"
    ALERT_CANCEL_CONFIRM = "alert.cancel-confirm"
    CAPACITY_ASK = "capacity.ask"
    CAPACITY_ANSWER = "capacity.answer"
    HELLO = "hello"
    RESUME = "resume"
    RECEIPT = "receipt"
    BUNDLE = "bundle"
    ATTACHMENT_PART = "attachment.part"


class Priority(StrEnum):
    """IASC: acknowledged within 1 h, 24 h, two working days."""

    EMERGENCY = "emergency"
    URGENT = "urgent"
    NORMAL = "normal"


class Spoken(StrEnum):
    """Languages that people ask for: ISO 639, also those that are spoken and not written."""

    EN = "en"
    PCM = "pcm"
    BIN = "bin"
    YO = "yo"
    IG = "ig"
    HA = "ha"
    FR = "fr"
    ES = "es"
    PT = "pt"
    IT = "it"
    DE = "de"
    RO = "ro"
    SQ = "sq"
    BG = "bg"
    HU = "hu"
    UK = "uk"
    RU = "ru"
    AR = "ar"
    FA = "fa"
    PS = "ps"
    UR = "ur"
    PA = "pa"
    BN = "bn"
    HI = "hi"
    TI = "ti"
    AM = "am"
    SO = "so"
    TR = "tr"
    VI = "vi"
    TH = "th"
    ZH = "zh"
    TL = "tl"
    SGN = "sgn"


class ChildAge(StrEnum):
    """Age bands of children in a question that names nobody."""

    TO_2 = "0-2"
    TO_5 = "3-5"
    TO_11 = "6-11"
    TO_17 = "12-17"


class AlertForm(StrEnum):
    """What an alert may say of anybody. The first has no field that could name somebody."""

    PLACE_OR_PATTERN = "place-or-pattern"
    PSEUDONYMOUS_PERSON = "pseudonymous-person"
    IDENTIFIED_PERSON = "identified-person"


class AlertCategory(StrEnum):
    """What it is about."""

    IMMEDIATE_DANGER = "immediate-danger"
    MISSING_PERSON = "missing-person"
    TRAFFICKER_NEARBY = "trafficker-nearby"
    VENUE = "venue"
    TRAVEL_IMMINENT = "travel-imminent"
    FORCED_RETURN = "forced-return"
    PATTERN = "pattern"


class Urgency(StrEnum):
    """CAP 1.2: how soon somebody has to act."""

    IMMEDIATE = "Immediate"
    EXPECTED = "Expected"
    FUTURE = "Future"
    UNKNOWN = "Unknown"


class Severity(StrEnum):
    """CAP 1.2."""

    EXTREME = "Extreme"
    SEVERE = "Severe"
    MODERATE = "Moderate"
    MINOR = "Minor"
    UNKNOWN = "Unknown"


class Certainty(StrEnum):
    """CAP 1.2."""

    OBSERVED = "Observed"
    LIKELY = "Likely"
    POSSIBLE = "Possible"
    UNLIKELY = "Unlikely"
    UNKNOWN = "Unknown"


class Asked(StrEnum):
    """What the sender asks for."""

    ACT_NOW = "act-now"
    ADVISE = "advise"
    RECORD = "record"
    DO_NOT_APPROACH = "do-not-approach"


class Light(StrEnum):
    """TLP 2.0 and PAP: who may see it, what may be done with it."""

    RED = "red"
    AMBER = "amber"
    GREEN = "green"
    CLEAR = "clear"


class Handling(StrEnum):
    """Europol handling codes: H0 use, H1 not in court without permission, H2 not passed on, H3 other."""

    H0 = "H0"
    H1 = "H1"
    H2 = "H2"
    H3 = "H3"


class Source(StrEnum):
    """Reliability of the source."""

    A = "A"
    B = "B"
    C = "C"
    X = "X"


class AlertStatus(StrEnum):
    """Seen is not acted: each step is its own."""

    RAISED = "raised"
    ACKNOWLEDGED = "acknowledged"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    ACTED = "acted"
    NO_ACTION = "no-action"
    CLOSED = "closed"
    CANCELLED = "cancelled"


class Kind(StrEnum):
    """`referral`: the source stays responsible for the case; `transfer`: responsibility moves, at `accepted` only."""

    REFERRAL = "referral"
    TRANSFER = "transfer"


class Section(StrEnum):
    """The units of consent: what a person can include or leave out. Each is sealed on its own."""

    SERVICE = "service"
    IDENTITY = "identity"
    CONTACT = "contact"
    SAFETY = "safety"
    HEALTH = "health"
    LEGAL = "legal"
    FAMILY = "family"
    TRAFFICKING = "trafficking"
    NARRATIVE = "narrative"
    ATTACHMENTS = "attachments"


class CardState(StrEnum):
    """What a backstop card says. The last two are the backstop's answers, the others are the responsible agency's."""

    PLANNED = "planned"
    OVERDUE = "overdue"
    ORPHANED = "orphaned"
    ENDED = "ended"
    OPENED = "opened"
    TAKEN = "taken"


class Purpose(StrEnum):
    """What a release may be used for. Law enforcement is always a release of its own."""

    REFERRAL = "referral"
    TRANSFER = "transfer"
    FOLLOW_UP = "follow-up"
    BACKSTOP = "backstop"
    ALERT = "alert"
    LAW_ENFORCEMENT = "law-enforcement"


class Basis(StrEnum):
    """The legal basis on which data travels. All but consent need a reason, a rule and a second person."""

    CONSENT = "consent"
    VITAL_INTERESTS = "vital-interests"
    LEGAL_OBLIGATION = "legal-obligation"
    CHILD_PROTECTION = "child-protection"


class Onward(StrEnum):
    """Whether the recipient may pass the data on: not at all, or to agencies named in the release."""

    NONE = "none"
    NAMED = "named"


class Status(StrEnum):
    """FHIR Task status codes, those that a referral can be in."""

    DRAFT = "draft"
    REQUESTED = "requested"
    RECEIVED = "received"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    IN_PROGRESS = "in-progress"
    ON_HOLD = "on-hold"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ENTERED_IN_ERROR = "entered-in-error"


class BusinessStatus(StrEnum):
    """Gravity business status: a label beside the status, which never decides anything."""

    ACKNOWLEDGED = "acknowledged"
    WAITLISTED = "waitlisted"
    NEEDS_CLIENT_ACTION = "needs-client-action"
    EVENT_SCHEDULED = "event-scheduled"
    EVENT_UNATTENDED = "event-unattended"
    EVENT_CANCELLED = "event-cancelled"
    EVENT_COMPLETED = "event-completed"
    ARRIVED = "arrived"
    INTERIM_REPORT = "interim-report"
    REFERRED_ONWARD = "referred-onward"


class StatusReason(StrEnum):
    """Why a referral was declined, held or ended. Travels sealed, never in a header."""

    NO_CAPACITY = "no-capacity"
    NOT_ELIGIBLE = "not-eligible"
    OUT_OF_AREA = "out-of-area"
    SERVICE_UNAVAILABLE = "service-unavailable"
    FUNDING_ENDED = "funding-ended"
    LANGUAGE_NOT_AVAILABLE = "language-not-available"
    COULD_NOT_CONTACT = "could-not-contact"
    DECLINED_BY_SURVIVOR = "declined-by-survivor"
    ALREADY_RECEIVING_SERVICE = "already-receiving-service"
    CONFLICT_OF_INTEREST = "conflict-of-interest"
    SAFETY_RISK = "safety-risk"
    CONSENT_WITHDRAWN = "consent-withdrawn"
    CONSENT_EXPIRED = "consent-expired"
    DUPLICATE = "duplicate"
    OTHER = "other"


#: Reasons that would tell the sender that the person is known at the target. They stay inside; `other` is sent.
REASONS_KEPT_INSIDE = frozenset(
    {StatusReason.ALREADY_RECEIVING_SERVICE, StatusReason.DUPLICATE, StatusReason.CONFLICT_OF_INTEREST}
)


class FollowupOutcome(StrEnum):
    """What came of a follow-up. Travels sealed, except that one was reported."""

    REACHED_SAFE = "reached-safe"
    REACHED_NEEDS_SUPPORT = "reached-needs-support"
    REACHED_AT_RISK = "reached-at-risk"
    NOT_REACHED = "not-reached"
    SOMEONE_ELSE_ANSWERED = "someone-else-answered"
    CONTACT_DECLINED = "contact-declined"
    TRANSFERRED = "transferred"
    CASE_CLOSED = "case-closed"


class Risk(StrEnum):
    """How closely a person is followed up. Separate from priority."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"


class ConsentState(StrEnum):
    """27560 consent states; each is an event that is appended, never overwritten."""

    REQUESTED = "ConsentRequested"
    REFUSED = "ConsentRefused"
    GIVEN = "ConsentGiven"
    RENEWED = "RenewedConsentGiven"
    WITHDRAWN = "ConsentWithdrawn"
    REVOKED = "ConsentRevoked"
    INVALIDATED = "ConsentInvalidated"
    EXPIRED = "ConsentExpired"


class ReceiptStatus(StrEnum):
    """What became of one message at its recipient. Only `delivered` and `unreadable` say that it is stored."""

    DELIVERED = "delivered"
    UNREADABLE = "unreadable"
    RESEAL_NEEDED = "reseal-needed"
    UNSUPPORTED_TYPE = "unsupported-type"
    REJECTED = "rejected"


class Role(StrEnum):
    """What a member of staff may do. One person may hold several."""

    CASEWORKER = "caseworker"
    INTAKE = "intake"
    SUPERVISOR = "supervisor"
    DIRECTOR = "director"
    LIAISON = "liaison"
    VOLUNTEER = "volunteer"
    AUDITOR = "auditor"
    ADMINISTRATOR = "administrator"
    OFFICER = "officer"
    STEWARD = "steward"
