# SPDX-License-Identifier: Apache-2.0
"""How codes are called on screens and paper. Codes travel and are stored; people read these words.

Every code of a closed list has its words here (a test compares). The words avoid blame and what could be mistaken for a
report to the authorities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from protocol import codes
from protocol.referral import Action


def N_(text: str) -> str:  # noqa: N802  the name that gettext's tools look for
    """Marks a text for translation where it is written; it is translated where it is shown."""
    return text


STATUS: Final = {
    "draft": N_("Draft"),
    "requested": N_("Sent, not delivered yet"),
    "received": N_("Delivered"),
    "accepted": N_("Accepted"),
    "rejected": N_("Cannot take this on now"),
    "in-progress": N_("Under way"),
    "on-hold": N_("On hold"),
    "completed": N_("Completed"),
    "failed": N_("Did not take place"),
    "cancelled": N_("Cancelled"),
    "entered-in-error": N_("Sent by mistake"),
}
ACTION: Final = {
    "request": N_("Referral sent"),
    "receive": N_("Delivered"),
    "acknowledge": N_("Seen by the desk"),
    "accept": N_("Accepted"),
    "reject": N_("Cannot take this on now"),
    "start": N_("First contact made"),
    "hold": N_("Put on hold"),
    "resume": N_("Taken up again"),
    "label": N_("News"),
    "complete": N_("Completed"),
    "fail": N_("Did not take place"),
    "cancel": N_("Asked to stop"),
    "confirm-cancel": N_("Stopped, as asked"),
    "cancel-confirm": N_("Stopped, as asked"),
    "cancel-by-target": N_("Stopped by the receiving agency"),
    "update": N_("News"),
    "outcome": N_("Outcome"),
    "void": N_("Sent by mistake; contents erased"),
    "send": N_("Send"),
    "note": N_("Note"),
    "replace": N_("Correction"),
    "member": N_("tell of somebody who comes along"),
    "attach": N_("File"),
    "withdraw": N_("Stop sharing: told to the other agency"),
    "locked": N_("The data is locked"),
    "erased": N_("Erasure signed"),
    "plan": N_("Follow-ups planned"),
    "report": N_("Follow-up reported"),
    "resync": N_("Asked for a missing message"),
}
REASON: Final = {
    "no-capacity": N_("No room or time at present"),
    "not-eligible": N_("Our service is not meant for this situation"),
    "out-of-area": N_("Outside our area"),
    "service-unavailable": N_("We do not offer this service now"),
    "funding-ended": N_("The funding has ended"),
    "language-not-available": N_("We do not have the language"),
    "could-not-contact": N_("We could not reach the person"),
    "declined-by-survivor": N_("Chose not to go ahead"),
    "already-receiving-service": N_("Is already helped here (the other agency will read “another reason”)"),
    "conflict-of-interest": N_("Conflict of interest (the other agency will read “another reason”)"),
    "safety-risk": N_("It would not be safe"),
    "consent-withdrawn": N_("The consent was withdrawn"),
    "consent-expired": N_("The consent has ended"),
    "duplicate": N_("We have this referral already (the other agency will read “another reason”)"),
    "other": N_("Another reason"),
}
PRIORITY: Final = {"emergency": N_("Emergency"), "urgent": N_("Urgent"), "normal": N_("Normal")}
KIND: Final = {"referral": N_("Referral to another service"), "transfer": N_("Hand-over of responsibility")}
RISK: Final = {
    "high": N_("High: contact every week"),
    "medium": N_("Medium: contact every two weeks"),
    "low": N_("Low: contact every month"),
    "none": N_("No special risk: contact every three months"),
}
RISK_SHORT: Final = {"high": N_("high"), "medium": N_("medium"), "low": N_("low"), "none": N_("none known")}
BUSINESS: Final = {
    "acknowledged": N_("Seen by the desk"),
    "waitlisted": N_("On the waiting list"),
    "needs-client-action": N_("The person has something to do"),
    "event-scheduled": N_("Appointment made"),
    "event-unattended": N_("The appointment did not happen"),
    "event-cancelled": N_("The appointment was called off"),
    "event-completed": N_("The appointment took place"),
    "arrived": N_("Arrived"),
    "interim-report": N_("Interim report"),
    "referred-onward": N_("Referred onward"),
}
ATTENTION: Final = {
    "undelivered": N_("Not delivered yet. Please telephone."),
    "awaiting-acknowledgement": N_("Not seen by the desk yet"),
    "awaiting-decision": N_("Waiting for an answer"),
    "overdue": N_("Overdue"),
    "silent": N_("No contact recorded"),
    "dormant": N_("No contact recorded"),
    "orphaned": N_("Nobody is responsible"),
}
SECTION: Final = {
    "service": N_("What is needed"),
    "identity": N_("Who she or he is"),
    "contact": N_("Safe contact"),
    "safety": N_("Safety"),
    "health": N_("Health"),
    "legal": N_("Legal situation"),
    "family": N_("Children and family"),
    "trafficking": N_("What happened (codes)"),
    "narrative": N_("In her own words"),
    "attachments": N_("Files"),
}
PURPOSE: Final = {
    "referral": N_("Referral"),
    "transfer": N_("Hand-over"),
    "follow-up": N_("Follow-up"),
    "backstop": N_("In case our agency falls silent"),
    "alert": N_("Alert"),
    "law-enforcement": N_("Law enforcement"),
}
CONSENT: Final = {
    "ConsentRequested": N_("Asked"),
    "ConsentRefused": N_("Said no"),
    "ConsentGiven": N_("Given"),
    "RenewedConsentGiven": N_("Renewed"),
    "ConsentWithdrawn": N_("Withdrawn by the person"),
    "ConsentRevoked": N_("Withdrawn by somebody else"),
    "ConsentInvalidated": N_("Not valid"),
    "ConsentExpired": N_("Ended; ask again"),
}
OUTCOME: Final = {
    "reached-safe": N_("Reached, and safe"),
    "reached-needs-support": N_("Reached; needs support"),
    "reached-at-risk": N_("Reached; at risk"),
    "not-reached": N_("No answer"),
    "someone-else-answered": N_("Someone else answered: stop, ask before calling again"),
    "contact-declined": N_("Does not want to be contacted"),
    "transferred": N_("Another agency follows this person now"),
    "case-closed": N_("The case is closed"),
}
ROLE: Final = {
    "caseworker": N_("Caseworker"),
    "intake": N_("Intake desk"),
    "supervisor": N_("Supervisor"),
    "director": N_("Director"),
    "liaison": N_("Liaison"),
    "volunteer": N_("Volunteer"),
    "auditor": N_("Auditor"),
    "administrator": N_("Administrator"),
    "officer": N_("Officer (certifies desks)"),
    "steward": N_("Steward"),
}
AGENCY: Final = {
    "NGO": N_("NGO"),
    "LawEnforcement": N_("Law enforcement"),
    "HealthServiceOrganisation": N_("Health service"),
    "CentralGovernmentOrganisation": N_("Central government"),
    "LocalGovernmentOrganisation": N_("Local government"),
    "ImmigrationService": N_("Immigration service"),
    "LegalService": N_("Legal service"),
    "CorporateBusiness": N_("Company"),
    "SchoolOrCollege": N_("School or college"),
}
STANDING: Final = {
    "unverified": N_("Fingerprints not compared yet"),
    "verified": N_("Verified"),
    "blocked": N_("Blocked"),
}
TASK: Final = {
    "undelivered": N_("A referral has not been delivered. Please telephone the agency."),
    "overdue": N_("An answer to a referral is overdue."),
    "cancel-asked": N_("The other agency asks you to stop a referral. Confirm it."),
    "question": N_("The other agency asks a question."),
    "answered": N_("The other agency has answered a referral."),
    "unmet": N_("A referral ended without help. Refer her again, or write why nothing more is needed."),
    "correction": N_("Something that was sent to you has been corrected. Read it."),
    "comes-along": N_("Somebody else comes along with a person you have answered for. Look at it."),
    "erase-or-keep": N_("Somebody has stopped sharing. Erase what you hold, or say which law makes you keep it."),
    "erasure-missing": N_("An agency has not answered a request to erase."),
    "retention-due": N_("A closed case has been kept for as long as your agency keeps them. Erase it, or say why not."),
    "outside-tell": N_("Something has changed for an agency without a node. Telephone it."),
    "outside-erase": N_("Somebody has stopped sharing with an agency without a node. Telephone it, ask it to erase."),
    "consent-ended": N_("A consent has ended. Ask whether it is renewed."),
    "followup-due": N_("A follow-up is due."),
    "followup-missed": N_(
        "A follow-up was missed. If the other agency does it: telephone the agency, never the person."
    ),
    "followup-not-reached": N_("The person was not reached. Decide what to do next."),
    "followup-someone-else-answered": N_("Someone else answered. Decide before anybody calls again."),
    "followup-reached-at-risk": N_("A person was reached and is at risk."),
    "desk-key-rotate": N_("A desk needs a new key."),
    "desk-without-members": N_("A desk has nobody who can read its mail."),
    "desk-silent": N_("Nobody has signed in at a desk for days, and something waits there."),
    "agency-silent": N_("An agency with which something is open is silent. Telephone it."),
    "agency-gone": N_("An agency has been silent for 14 days. Telephone the agency, never the person, and decide."),
    "answers-forgotten": N_(
        "An agency answers what this node no longer knows, because it was restored. Telephone it and ask what was sent."
    ),
    "backstop-names": N_("An agency says of many others that they have missed a follow-up. Telephone it and ask."),
    "backstop-call": N_("An agency has missed a follow-up. Telephone the agency, never the person."),
    "backstop-used": N_("While nothing was heard of us, our backstop opened the card of a person. Telephone it."),
    "roster-not-signed": N_("Somebody waits to be confirmed as a member of a desk."),
    "approve-disclosure": N_("A colleague asks you to approve sharing without the person's consent."),
    "capacity-asked": N_("Another agency asks whether you could take somebody."),
    "programme-ends": N_("A programme ends, and people in it still need somebody who goes on."),
    "programme-review": N_("A programme without an end has to be looked at."),
    "case-orphaned": N_("A programme has ended and nobody is responsible for a person in it. Find somebody now."),
    "alert-waiting": N_("An alert waits to be acknowledged."),
    "alert-question": N_("There is a question or an answer about an alert."),
    "alert-cancel": N_("The sender of an alert asks to stop. Confirm it."),
    "alert-unconfirmed": N_("Nobody has confirmed that an alert was stopped. Telephone the liaison."),
    "alert-outside": N_("An alert to a liaison without a node is not acknowledged. Telephone again."),
    "review-disclosure": N_("A colleague had to act alone in an emergency. Look at it, and agree or take it back."),
    "tell-her": N_("A person has to be told what was said of her without her consent."),
    "alert-path": N_("A daily test to a liaison was not answered. Telephone the liaison and the administrator."),
    "absence-uncovered": N_("A colleague is away, and her cover may not see or cannot read part of what is open."),
    "alert-path-silent": N_("No daily test has come from an agency. Telephone the agency and the administrator."),
    "alert-drill": N_("Once a month: try the way to a liaison together, by telephone and on the page."),
    "node-restored": N_("The node was restored from a backup. Tell everybody: what was done here after it is missing."),
    "clock-doubted": N_("The clock of the server was set. Look whether it is right, and say so."),
    "sign-in-codes": N_("Somebody typed your passphrase but wrong codes. If it was not you, change it now."),
}
ALERT_CATEGORY: Final = {
    "immediate-danger": N_("Somebody is in danger"),
    "missing-person": N_("Somebody is missing"),
    "trafficker-nearby": N_("An exploiter is nearby"),
    "venue": N_("A place where people are exploited"),
    "travel-imminent": N_("Somebody is about to be taken away"),
    "forced-return": N_("Somebody is to be sent back against her will"),
    "pattern": N_("Something that happens again and again"),
}
ALERT_URGENCY: Final = {
    "Immediate": N_("At once: a life is at stake"),
    "Expected": N_("Within hours"),
    "Future": N_("Within days"),
    "Unknown": N_("For their information"),
}
ALERT_URGENCY_SHORT: Final = {"Immediate": N_("At once"), "Expected": N_("Within hours")}
ALERT_ASKED: Final = {
    "act-now": N_("Act now"),
    "advise": N_("Advise us"),
    "record": N_("Keep it on record"),
    "do-not-approach": N_("Do not approach; be ready"),
}
ALERT_FORM: Final = {
    "place-or-pattern": N_("It names nobody."),
    "pseudonymous-person": N_("Of somebody who is described, and not named."),
    "identified-person": N_("Of somebody who is named."),
}
ALERT_BASIS: Final = {
    "consent": N_("She has released this herself."),
    "vital-interests": N_("Without her consent: a life is in danger, and she cannot be asked."),
    "legal-obligation": N_("Without her consent: a law or a court obliges."),
    "child-protection": N_("Without her consent: to protect a child."),
}
#: What came of an alert, as it is shown to the person.
ALERT_FOR_HER: Final = {
    "accepted": N_("They have taken it on."),
    "refused": N_("They cannot take it on. We look for another way with you."),
    "acted": N_("They have done something about it."),
    "no-action": N_("They have looked at it, and do nothing now."),
    "closed": N_("It is finished there."),
    "cancelled": N_("We stopped it, as you wished."),
}
ALERT_KNOWN: Final = {
    "saw": N_("I saw it myself"),
    "told": N_("Somebody who was there told us"),
    "heard": N_("We heard of it"),
    "unsure": N_("We cannot say how far it is true"),
}
ALERT_STATUS: Final = {
    "raised": N_("Sent"),
    "acknowledged": N_("Acknowledged"),
    "accepted": N_("Taken on"),
    "refused": N_("Not taken on"),
    "acted": N_("They have acted"),
    "no-action": N_("No action"),
    "closed": N_("Closed"),
    "cancelled": N_("Stopped"),
}
ALERT_ACTION: Final = {
    "raise": N_("Alert sent"),
    "seen": N_("Opened"),
    "ack": N_("Acknowledged"),
    "acknowledge": N_("Acknowledge"),
    "accept": N_("Taken on"),
    "refuse": N_("Not taken on"),
    "act": N_("Acted"),
    "no-action": N_("No action"),
    "close": N_("Closed"),
    "ask": N_("Question"),
    "answer": N_("Answer"),
    "update": N_("An answer"),
    "withdraw": N_("Sharing was stopped"),
    "locked": N_("The data is locked."),
    "erased": N_("Erased and signed."),
    "approve": N_("A second person has approved it"),
    "cancel": N_("Asked to stop"),
    "confirm-cancel": N_("Stopped, as asked"),
    "cancel-confirm": N_("Stopped, as asked"),
}
ALERT_STEP: Final = {
    "acknowledge": N_("the second person on duty is told; without a rota, the whole desk again"),
    "supervisor": N_("the supervisors of both agencies are told"),
    "second": N_("the second liaison is tried; then everybody is told again and again"),
}
HANDLING: Final = {
    "H0": N_("It may be used for the work of the police."),
    "H1": N_("Not in court without our permission."),
    "H2": N_("It may not be passed on to anybody."),
    "H3": N_("Other limits hold: ask us first."),
}
TLP: Final = {
    "red": N_("Only for the people of this desk."),
    "amber": N_("Only for people of the agency who have to know."),
    "green": N_("For partner agencies too."),
    "clear": N_("For everybody."),
}
PAP: Final = {
    "red": N_("Do nothing that somebody could notice."),
    "amber": N_("Look, and do nothing that could show where it is from."),
    "green": N_("Act, with care."),
    "clear": N_("Act freely."),
}
CERTAINTY: Final = {
    "Observed": N_("seen"),
    "Likely": N_("likely"),
    "Possible": N_("possible"),
    "Unlikely": N_("unlikely"),
    "Unknown": N_("not known how certain"),
}
SEVERITY: Final = {
    "Extreme": N_("life in danger"),
    "Severe": N_("severe"),
    "Moderate": N_("moderate"),
    "Minor": N_("slight"),
    "Unknown": N_("not known how severe"),
}
HANDOVER: Final = {
    "moved": N_("Another agency is responsible"),
    "stays": N_("She did not want to be handed over"),
    "asked": N_("A transfer is under way"),
    "declined": N_("A transfer was not taken on: choose another agency"),
    "nobody": N_("Nobody yet"),
}
HANDOVER_CONSENT: Final = {"needed": N_("to be asked"), "given": N_("given"), "refused": N_("she said no")}
TASK_OTHER: Final = {
    "message": N_("A message did not get through."),
    "alarm": N_("Something unusual was noticed in the exchange with another agency."),
    "followup": N_("A follow-up needs a decision."),
    "": N_("Something needs a person."),
}
KEY_DATE: Final = {
    "reflection-end": N_("The reflection period ends"),
    "permit-end": N_("A permit ends"),
    "birthday-18": N_("18th birthday"),
}
STANDING_OF_CASE: Final = {
    "on-time": N_("On time"),
    "overdue": N_("Follow-up overdue"),
    "silent": N_("No contact for too long"),
    "orphaned": N_("Programme ended, nobody responsible"),
}
CARD: Final = {
    "planned": N_("The next follow-up is planned"),
    "overdue": N_("A follow-up was missed"),
    "orphaned": N_("A programme has ended, and nobody is responsible for her"),
    "ended": N_("Not needed any more"),
    "opened": N_("The card was opened"),
    "taken": N_("The other agency is responsible for her now"),
}
REPORT_BY: Final = {
    "programme": N_("Programme"),
    "service": N_("Service"),
    "desk": N_("Desk"),
    "month": N_("Month of the first day"),
}
#: Of a case that names no service, or that the reader may not open.
NO_SERVICE: Final = N_("Not written down, or of another desk")
RUNG: Final = {
    "prepare": N_("in the digest"),
    "due": N_("the person responsible is told"),
    "again": N_("the person responsible is told again"),
    "supervisor": N_("the supervisor is told"),
    "director": N_("the director is told"),
    "at-risk": N_("marked: at risk"),
    "looking-as-agreed": N_("looking, only as agreed beforehand"),
    "no-contact-180": N_("no contact for 180 days"),
}
PERMITTED: Final = {
    "yes": N_("Yes, as written below"),
    "survivor-will-contact-us": N_("No, the person will contact us"),
    "no": N_("No contact"),
}
ACT: Final = {
    "case-opened": N_("The case was opened"),
    "referred": N_("Another agency was asked for help"),
    "accepted": N_("An agency took it on"),
    "declined": N_("An agency declined"),
    "ended": N_("What an agency did has ended"),
    "followed-up": N_("Somebody was in touch with her, or tried"),
}
CHILD_AGE: Final = {
    "0-2": N_("0–2"),
    "3-5": N_("3–5"),
    "6-11": N_("6–11"),
    "12-17": N_("12–17"),
}
AGE: Final = {
    "0-11": N_("0–11"),
    "12-17": N_("12–17"),
    "18-24": N_("18–24"),
    "25-39": N_("25–39"),
    "40-59": N_("40–59"),
    "60+": N_("60 or more"),
    "unknown": N_("not known"),
}
GENDER: Final = {
    "Feminine": N_("Woman or girl"),
    "Masculine": N_("Man or boy"),
    "TransgenderFeminine": N_("Trans woman"),
    "TransgenderMasculine": N_("Trans man"),
    "NonConforming": N_("Non-binary"),
    "NonSpecifiedUnknown": N_("Not said"),
}
BASIS: Final = {
    "vital-interests": N_("A life is in danger, and she cannot be asked"),
    "legal-obligation": N_("A law obliges us"),
    "child-protection": N_("To protect a child"),
}
COLLECTED: Final = {"oral": N_("In words"), "written": N_("In writing"), "guardian": N_("By the guardian")}
COPY: Final = {
    "none": N_("No copy: it could be found"),
    "paper": N_("A copy on paper"),
    "kept-by-us": N_("We keep it for her"),
    "read-to-her": N_("It was read aloud"),
}
CHILD: Final = {
    "agrees": N_("The child agrees"),
    "does-not-agree": N_("The child does not agree"),
    "not-asked": N_("The child was not asked"),
}
DELIVERY: Final = {
    "queued": N_("not sent yet"),
    "sent": N_("under way"),
    "delivered": N_("delivered"),
    "applied": N_("received"),
    "unreadable": N_("delivered, but could not be read there"),
    "reseal-needed": N_("has to be sent again"),
    "rejected": N_("not taken"),
    "expired": N_("not delivered in time"),
    "withheld": N_("held back"),
}
#: Open Eligibility ids, in the order in which people look for them.
SERVICE: Final = {
    "1121": N_("Emergency shelter"),
    "1123": N_("Immediate safety"),
    "1125": N_("Safe housing"),
    "1145": N_("Longer-term housing"),
    "1206": N_("Medical care"),
    "1220": N_("Counselling"),
    "1126": N_("Psychiatric emergency"),
    "1178": N_("Addiction and recovery"),
    "1375": N_("Legal advice"),
    "1389": N_("Representation in court"),
    "1381": N_("Residence and citizenship"),
    "1390": N_("Interpreting"),
    "1232": N_("Money"),
    "1326": N_("Language course"),
    "1365": N_("Training"),
    "1357": N_("Finding work"),
    "1373": N_("Supported employment"),
    "1374": N_("Rights at work"),
    "1303": N_("Support group"),
    "1292": N_("Finding the way through the system"),
}
#: Open Eligibility's own path, stored beside the id because titles repeat.
SERVICE_PATH: Final = {
    "1121": "Housing > Temporary Shelter > Emergency Shelter",
    "1123": "Emergency > Immediate Safety",
    "1125": "Emergency > Immediate Safety > Safe Housing",
    "1145": "Housing > Residential Housing",
    "1206": "Health > Medical Care",
    "1220": "Care > Support Network > Counseling",
    "1126": "Emergency > Psychiatric Emergency Services",
    "1178": "Health > Addiction & Recovery",
    "1375": "Legal > Advocacy & Legal Aid",
    "1389": "Legal > Representation",
    "1381": "Legal > Citizenship & Immigration",
    "1390": "Legal > Translation & Interpretation",
    "1232": "Money > Financial Assistance",
    "1326": "Education > More Education > Foreign Languages",
    "1365": "Work > Skills & Training",
    "1357": "Work > Help Find Work",
    "1373": "Work > Supported Employment",
    "1374": "Work > Workplace Rights",
    "1303": "Care > Support Network",
    "1292": "Care > Navigating the System",
}
#: Languages that are spoken with survivors, by ISO 639; each is shown by its own name.
SPOKEN: Final = {
    "en": "English",
    "pcm": "Naijá (Pidgin)",
    "bin": "Ẹ̀dó (Edo)",
    "yo": "Yorùbá",
    "ig": "Igbo",
    "ha": "Hausa",
    "fr": "Français",
    "es": "Español",
    "pt": "Português",
    "it": "Italiano",
    "de": "Deutsch",
    "ro": "Română",
    "sq": "Shqip",
    "bg": "Български",
    "hu": "Magyar",
    "uk": "Українська",
    "ru": "Русский",
    "ar": "العربية",
    "fa": "فارسی",
    "ps": "پښتو",
    "ur": "اردو",
    "pa": "ਪੰਜਾਬੀ",
    "bn": "বাংলা",
    "hi": "हिन्दी",
    "ti": "ትግርኛ",
    "am": "አማርኛ",
    "so": "Soomaali",
    "tr": "Türkçe",
    "vi": "Tiếng Việt",
    "th": "ไทย",
    "zh": "中文",
    "tl": "Tagalog",
    "sgn": "Sign language",
}
FIELD: Final = {
    "services": N_("Services asked for"),
    "already_provided": N_("Already provided"),
    "reason": N_("Reason"),
    "details": N_("What is needed, in a few sentences"),
    "text": N_("Text"),
    "preferred_start": N_("Preferred start"),
    "incident_window": N_("When it happened"),
    "worker": N_("Worker"),
    "our_number": N_("Our number"),
    "their_number": N_("Their number"),
    "meeting_point": N_("Where to come"),
    "arrival_word": N_("The word by which she is known at the door"),
    "agreed_by_telephone_with": N_("Agreed by telephone with"),
    "open_followups": N_("Days on which contact was planned"),
    "history": N_("What was done so far"),
    "told_by": N_("Told by"),
    "case_code": N_("Case code"),
    "pseudonym": N_("A word for her between the two desks"),
    "description": N_("How she can be recognised"),
    "name": N_("Name"),
    "relation": N_("Relation"),
    "birth_date": N_("Date of birth"),
    "age_disputed": N_("The age is disputed"),
    "age_band": N_("Age"),
    "gender": N_("Gender"),
    "nationality": N_("Nationality"),
    "documents": N_("Documents held"),
    "contact_permitted": N_("May we contact the person?"),
    "telephone": N_("Telephone"),
    "channels": N_("Ways to make contact"),
    "channel": N_("By"),
    "safe": N_("Safe"),
    "value": N_("Number or address"),
    "safe_days_times": N_("Safe days and times"),
    "safe_times": N_("Safe hours"),
    "voicemail_ok": N_("Voicemail is safe"),
    "message_ok": N_("Messages are safe"),
    "may_name_organisation": N_("May name our organisation"),
    "say_if_other_answers": N_("Say this if someone else answers"),
    "safe_word": N_("Safe word"),
    "device_shared_or_monitored": N_("Somebody else may read this device"),
    "preferred_language": N_("Language"),
    "interpreter_needed": N_("Interpreter needed"),
    "interpreter_constraints": N_("Who must not interpret"),
    "confirmed_on": N_("Confirmed on"),
    "recheck_every_days": N_("Ask again after days"),
    "risk": N_("Risk"),
    "must_not_learn": N_("Who must not learn of it"),
    "immediate_dangers": N_("Immediate dangers"),
    "safety_plan": N_("Safety plan"),
    "physical_needs": N_("Physical health"),
    "psychological_needs": N_("Psychological needs"),
    "medication": N_("Medication"),
    "disability": N_("Disability"),
    "pregnancy": N_("Pregnancy"),
    "status": N_("Status"),
    "permits": N_("Permits"),
    "kind": N_("Kind"),
    "until": N_("Until"),
    "proceedings": N_("Proceedings"),
    "reflection_period_end": N_("End of the reflection period"),
    "dependants": N_("Children and dependants"),
    "needs": N_("Needs"),
    "how_to_approach": N_("How to approach"),
    "may_say_no": N_("Was not asked, and may say no"),
    "caregiver": N_("Caregiver"),
    "guardian": N_("Guardian"),
    "unaccompanied": N_("Unaccompanied"),
    "caregiver_informed": N_("The caregiver knows"),
    "why_not_informed": N_("Why the caregiver does not know"),
    "asserted_by": N_("Who says so"),
    "exploitation": N_("Kinds of exploitation"),
    "control": N_("Methods of control"),
    "indicators": N_("Indicators (they neither prove nor disprove anything)"),
}
#: Values of HTCDS lists; none of them calls anybody a victim.
HTCDS: Final = {
    "PossibleVictimOfTrafficking": N_("Possibly trafficked"),
    "ActualVictimOfTrafficking": N_("Trafficked"),
    "NotAVictimOfTrafficking": N_("Not trafficked"),
    "Police": N_("Police"),
    "NGO": N_("NGO"),
    "CourtOrProsecution": N_("Court or prosecution"),
    "NonPoliceGovernmentalOrganization": N_("Another public body"),
    "Other": N_("Other"),
    "ForcedLabour": N_("Forced labour"),
    "SexualExploitation": N_("Sexual exploitation"),
    "ChildLabour": N_("Child labour"),
    "ForcedMarriage": N_("Forced marriage"),
    "Servitude": N_("Servitude"),
    "ForcedMilitaryByNonStateActors": N_("Forced to fight"),
    "OrganRemoval": N_("Organ removal"),
    "ForcedBegging": N_("Forced begging"),
    "ForcedAdoption": N_("Forced adoption"),
    "Surrogacy": N_("Surrogacy"),
    "DebtBondage": N_("Debt bondage"),
    "TakesEarnings": N_("Earnings taken away"),
    "RestrictsFinancialAccess": N_("No access to money"),
    "Threats": N_("Threats"),
    "PsychologicalAbuse": N_("Psychological abuse"),
    "PhysicalAbuse": N_("Physical abuse"),
    "SexualAbuse": N_("Sexual abuse"),
    "FalsePromises": N_("False promises"),
    "PsychoactiveSubstances": N_("Drugs or alcohol"),
    "RestrictsMovement": N_("Movement restricted"),
    "RestrictsMedicalCare": N_("Medical care withheld"),
    "ExcessiveWorkingHours": N_("Excessive working hours"),
    "UsesChildren": N_("Children used as a means"),
    "ThreatOfLawEnforcement": N_("Threatened with the authorities"),
    "WithholdsNecessities": N_("Necessities withheld"),
    "WithholdsDocuments": N_("Documents withheld"),
}
CHANNEL: Final = {
    "phone": N_("Telephone"),
    "sms": N_("Text message"),
    "email": N_("E-mail"),
    "messaging-app": N_("Messaging app"),
    "in-person": N_("In person"),
    "via-trusted-person": N_("Through a trusted person"),
}
YES_NO: Final = {"true": N_("yes"), "false": N_("no")}
DONE: Final = {
    "drilled": N_("Noted: people have tried this way today."),
    "sent": N_("The referral is on its way."),
    "saved": N_("Saved."),
    "told": N_("Done. The other agency is told."),
    "noted": N_("Sent."),
    "kept-here": N_("The file is kept here, sealed. Nothing was sent: hand a copy over, then write down who has it."),
    "reported": N_("The follow-up is recorded."),
    "withdrawn": N_("Use has stopped. Everybody who holds the data is told."),
    "renewed": N_("The consent is renewed."),
    "erased": N_("Erased and signed."),
    "closed": N_("The case is closed."),
    "erased-case": N_("The case is erased."),
    "opened": N_("The case is open. It has a next date."),
    "imported": N_("The cases are open. Each has a next date."),
    "moved": N_("Handed to a colleague."),
    "changed": N_("Changed."),
    "mailed": N_("A message is on its way to you. It says only that there is something to read."),
    "added": N_("Added."),
    "ended": N_("Ended."),
    "again": N_("You are signed in again. Nothing of your form was lost."),
    "draft": N_("The draft is kept, sealed. You find it on the first page."),
    "already": N_("This was sent already. Nothing was sent twice."),
    "discarded": N_("The draft is gone."),
    "asked": N_("Your colleagues are asked."),
    "raised": N_("The alert is on its way. This page shows how far it has come."),
    "prepared": N_("The drafts are on your first page. Ask each person, then send."),
    "moved-programme": N_("They go on in the other programme."),
    "asked-desks": N_("The desks are asked. You are told when they answer."),
    "answered": N_("The other desk is told."),
    "decided": N_("Your colleague is told."),
}
#: All that a notification says (`node.office.post`).
NOTIFICATION: Final = (N_("Reminder"), N_("There is something to read."))
#: What an agency without a node tells us, as its own people would say it.
TOLD: Final = {
    "acknowledge": N_("they have it and have seen it"),
    "accept": N_("they accept"),
    "reject": N_("they cannot take this on now"),
    "start": N_("first contact was made"),
    "hold": N_("it has to wait until a date"),
    "resume": N_("they take it up again"),
    "label": N_("how it goes"),
    "complete": N_("it is finished"),
    "fail": N_("it did not take place"),
    "cancel-by-target": N_("they have to stop"),
    "confirm-cancel": N_("they have stopped, as we asked"),
}
OPEN: Final = {
    "case": N_("Cases"),
    "referral": N_("Referrals"),
    "alert": N_("Alerts"),
    "followup": N_("Follow-ups"),
    "card": N_("Cards that are kept for other agencies"),
    "withdrawal": N_("Somebody stopped sharing, and not everybody has answered"),
    "message": N_("Messages that are not delivered yet"),
}
GROUPS: Final[Mapping[str, Mapping[str, str]]] = {
    "open": OPEN,
    "status": STATUS,
    "action": ACTION,
    "reason": REASON,
    "priority": PRIORITY,
    "kind": KIND,
    "risk": RISK,
    "risk-short": RISK_SHORT,
    "business": BUSINESS,
    "attention": ATTENTION,
    "section": SECTION,
    "purpose": PURPOSE,
    "consent": CONSENT,
    "outcome": OUTCOME,
    "role": ROLE,
    "agency": AGENCY,
    "standing": STANDING,
    "key_date": KEY_DATE,
    "standing_of_case": STANDING_OF_CASE,
    "report_by": REPORT_BY,
    "card": CARD,
    "rung": RUNG,
    "permitted": PERMITTED,
    "age": AGE,
    "act": ACT,
    "child-age": CHILD_AGE,
    "gender": GENDER,
    "basis": BASIS,
    "collected": COLLECTED,
    "copy": COPY,
    "child": CHILD,
    "delivery": DELIVERY,
    "service": SERVICE,
    "spoken": SPOKEN,
    "field": FIELD,
    "channel": CHANNEL,
    "htcds": HTCDS,
    "yes-no": YES_NO,
    "done": DONE,
    "told": TOLD,
    "handover": HANDOVER,
    "alert-category": ALERT_CATEGORY,
    "alert-urgency": ALERT_URGENCY,
    "alert-urgency-short": ALERT_URGENCY_SHORT,
    "alert-asked": ALERT_ASKED,
    "alert-known": ALERT_KNOWN,
    "alert-for-her": ALERT_FOR_HER,
    "alert-form": ALERT_FORM,
    "alert-basis": ALERT_BASIS,
    "alert-status": ALERT_STATUS,
    "alert-action": ALERT_ACTION,
    "alert-step": ALERT_STEP,
    "handling": HANDLING,
    "tlp": TLP,
    "pap": PAP,
    "certainty": CERTAINTY,
    "severity": SEVERITY,
    "handover-consent": HANDOVER_CONSENT,
}


#: The words of codes that stand in texts.
BY_KIND: Final[Mapping[type, Mapping[str, str]]] = {
    codes.Status: STATUS,
    codes.Role: ROLE,
    codes.Section: SECTION,
    Action: ACTION,
}


def label(group: str, code: object) -> str:
    """The words for a code, in English; the code itself where a peer sent one of a later version."""
    if group == "task":
        return TASK.get(str(code)) or TASK_OTHER.get(str(code).partition("-")[0], TASK_OTHER[""])
    return GROUPS[group].get(str(code), str(code))
