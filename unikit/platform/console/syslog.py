"""The record of ``console.syslog``."""

from __future__ import annotations

from unikit.component import component, option
from unikit.platform.console.api import ConsoleComponent

FACILITIES = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
              "authpriv", "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2",
              "local3", "local4", "local5", "local6", "local7")
"""Names of facilities 0 ... 23 (RFC 5424, table 1)."""
SEVERITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
"""Names of severities 0 ... 7 (RFC 5424, table 2)."""


@component
class Syslog(ConsoleComponent):
    """Sends each line to a syslog server by UDP.

    The host name in the messages is the image's address; lines before the network is up, or that it
    does not take, wait in a backlog of bounded size, and what does not fit is counted and said.
    """

    id = "console.syslog"
    sources = ("syslog.c",)
    requires = ("net",)
    reference = "RFC 5424 (message format), RFC 5426 (UDP)"

    server: str = option("0.0.0.0", "address of the server; it must be given", kind="address",
                         when="boot")
    port: int = option(514, "its UDP port", minimum=1, maximum=65535, when="boot")
    facility: str = option("local0", "facility of the messages", kind="choice",
                           choices=FACILITIES, when="boot")
    severity: str = option("info", "severity of the messages", kind="choice",
                           choices=SEVERITIES, when="boot")
    backlog: int | str = option(4096, "bytes for lines that wait", kind="size", minimum=1024,
                                maximum=1 << 20)
