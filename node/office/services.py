# SPDX-License-Identifier: Apache-2.0
"""SMS gateways, ntfy, Signal, Matrix and the like, through apprise (extra `notify`).

Closed by default: the operator names the services in staffetta.toml, and the hosts of those that have one of their own.
Whoever enters an address on a page can therefore not make this server talk to any other host: only to the provider's,
or to one that the operator wrote down. What starts programs, opens files, or sends to this machine's own log is not in
the list at all.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl

import msgspec

from node.errors import NodeError
from protocol.errors import LocalError, say

ADDRESS_MAX: Final = 1000
#: People behind one address: a group has an address of its own at its provider.
TARGETS_MAX: Final = 5
#: What may follow the question mark. Left out above all: switching off the check of certificates, following redirects,
#: templates (which are files of this machine), headers and longer time-outs.
_OPTIONS: Final = frozenset({"to", "from", "auth", "token", "priority"})
_SCHEMA: Final = re.compile(r"([a-z0-9]+)://[!-~]+")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Post(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mail server for notifications; none if `host` is empty. Without TLS only on this machine."""

    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 465
    security: Literal["tls", "starttls", "none"] = "tls"
    sender: str = ""
    username: str | None = None
    password_file: str | None = None


class Reach(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which services people may enter. `hosts` (a name, or name:port) are for services with a host of their own."""

    services: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Service:
    """Its name for people; its schemas, the one with TLS first; the only host it talks to, or None for one's own."""

    title: str
    schemas: tuple[str, ...]
    host: str | None = None


KNOWN: Final[dict[str, _Service]] = {
    # With a host that somebody runs: it has to be among `hosts`.
    "ntfy": _Service("ntfy", ("ntfys", "ntfy")),
    "signal": _Service("Signal", ("signals", "signal")),
    "matrix": _Service("Matrix", ("matrixs", "matrix")),
    "webhook": _Service("Webhook (JSON)", ("jsons", "json")),
    "gotify": _Service("Gotify", ("gotifys", "gotify")),
    "mattermost": _Service("Mattermost", ("mmosts", "mmost")),
    "rocketchat": _Service("Rocket.Chat", ("rockets", "rocket")),
    "nextcloud-talk": _Service("Nextcloud Talk", ("nctalks", "nctalk")),
    "smseagle": _Service("SMSEagle", ("smseagles", "smseagle")),
    # With the provider's.
    "twilio": _Service("Twilio (SMS)", ("twilio",), "api.twilio.com"),
    "vonage": _Service("Vonage (SMS)", ("vonage",), "rest.nexmo.com"),
    "clicksend": _Service("ClickSend (SMS)", ("clicksend",), "rest.clicksend.com"),
    "messagebird": _Service("MessageBird (SMS)", ("msgbird",), "rest.messagebird.com"),
    "bulksms": _Service("BulkSMS (SMS)", ("bulksms",), "api.bulksms.com"),
    "plivo": _Service("Plivo (SMS)", ("plivo",), "api.plivo.com"),
    "46elks": _Service("46elks (SMS)", ("46elks",), "api.46elks.com"),
    "seven": _Service("seven (SMS)", ("seven",), "gateway.seven.io"),
    "clickatell": _Service("Clickatell (SMS)", ("clickatell",), "platform.clickatell.com"),
    "threema": _Service("Threema Gateway", ("threema",), "msgapi.threema.ch"),
    "pushover": _Service("Pushover", ("pover",), "api.pushover.net"),
    "telegram": _Service("Telegram", ("tgram",), "api.telegram.org"),
}
_OF_SCHEMA: Final = {schema: name for name, service in KNOWN.items() for schema in service.schemas}


class ServiceError(NodeError):
    """The service did not take it. Says nothing of where it was going, nor why: that could quote the address."""


def is_installed() -> bool:
    """Whether the extra `notify` is there."""
    from importlib.util import find_spec

    return find_spec("apprise") is not None


def check(reach: Reach, address: str) -> str:
    """The service's name, if this address may be used here. Raises LocalError `service-…` with what to do instead."""
    found = _SCHEMA.fullmatch(address)
    if found is None or len(address) > ADDRESS_MAX:
        raise LocalError(
            "service-address",
            say(
                "This is not the address of a service. It looks like ntfys://host/topic and has at most {limit} "
                "characters.",
                limit=ADDRESS_MAX,
            ),
        )
    name = _OF_SCHEMA.get(found[1])
    if name is None or name not in reach.services:
        allowed = ", ".join(KNOWN[service].title for service in reach.services) or "–"
        raise LocalError(
            "service-not-allowed",
            say("This service is not switched on here. Switched on: {allowed}. Ask your operator.", allowed=allowed),
        )
    if not is_installed():
        raise LocalError(
            "service-not-installed",
            "Services besides e-mail are not installed here. Ask your operator: pip install staffetta[notify]",
        )
    options = parse_qsl(address.partition("?")[2], keep_blank_values=True)
    if "#" in address.partition("?")[2] or any(key.lower() not in _OPTIONS for key, _ in options):
        raise LocalError("service-options", "Part of what follows the question mark is not accepted here. Take it out.")
    plugin = _plugin(address)
    if plugin is None or len(plugin) > TARGETS_MAX:
        raise LocalError(
            "service-address",
            "This address is not complete, or names too many people. Compare it with the service's description.",
        )
    _check_host(reach, KNOWN[name], plugin)
    return name


def _check_host(reach: Reach, service: _Service, plugin: Any) -> None:
    if service.host is not None:
        return
    is_cloud = getattr(plugin, "mode", None) == "cloud"
    host = "ntfy.sh" if is_cloud else str(plugin.host).lower()
    port = "" if is_cloud or plugin.port is None else f":{plugin.port}"
    if host not in reach.hosts and host + port not in reach.hosts:
        raise LocalError("service-host", "This server may not talk to that host. Ask your operator to allow it.")
    if not (is_cloud or plugin.secure or host in _LOOPBACK):
        raise LocalError(
            "service-not-secure", "Without TLS only on this machine. Write the address with an s, as in ntfys://"
        )


def send(reach: Reach, address: str, subject: str, sentence: str) -> None:
    """Hand it to the service; to be called on a thread. What is allowed is asked again: the operator may have changed
    it. Raises ServiceError."""
    try:
        check(reach, address)
        is_taken = _notify(address, subject, sentence)
    except LocalError as error:
        raise ServiceError(error.code, error.text) from error
    except Exception as error:  # of a hundred plugins any may raise anything: it was not sent
        raise _not_taken() from error
    if not is_taken:
        raise _not_taken()


def _notify(address: str, subject: str, sentence: str) -> bool:
    import apprise

    sender = apprise.Apprise(asset=_asset())
    sender.add(_plugin(address))
    # As plain text: some services would show it as a page otherwise, with every apostrophe spelled out.
    return bool(sender.notify(body=sentence, title=subject, body_format=apprise.NotifyFormat.TEXT))


def _not_taken() -> ServiceError:
    return ServiceError("service-failed", "The service did not take it. Check its address, and that it is reached.")


def _asset() -> Any:
    import apprise

    # It would log addresses, which are secrets.
    logging.getLogger("apprise").disabled = True
    return apprise.AppriseAsset(
        app_id="Reminder",
        app_desc="Reminder",
        app_url="",
        image_url_mask="",
        image_url_logo="",
        async_mode=False,
        secure_logging=True,
        storage_mode="memory",
        http_redirects=False,
    )


def _plugin(address: str) -> Any:
    """apprise's object for an address, or None. It names no program, keeps nothing on disk and follows no redirect."""
    import apprise

    plugin: Any = apprise.Apprise.instantiate(address, asset=_asset())
    if plugin is not None and hasattr(plugin, "discovery"):
        # Matrix: what a host says about another host is not followed either.
        plugin.discovery = False
    return plugin
