"""The table of settings about etcd: who the broker is there, and whom it believes."""
# ruff: noqa: RUF009 - setting() declares a field, it is no shared default

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from riverrun_server.config.kinds import File, Maybe, Seconds, Switch, Text
from riverrun_server.config.setting import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """How etcd is reached, where `metadata` names one."""

    ca_file: Path | None = setting(
        Maybe(File(), "the machine's"),
        doc="Who may have signed the certificates of etcd, in PEM, by default whom the machine trusts. "
        "For `etcds://` only.",
    )
    cert_file: Path | None = setting(
        Maybe(File(), "none"),
        doc="The broker's own certificate for an etcd that asks for one, in PEM. etcd can take the user "
        "from it (`--client-cert-auth`).",
    )
    key_file: Path | None = setting(
        Maybe(File(), "none"),
        doc="The key of that certificate, in PEM.",
    )
    user: str = setting(
        Text(r"[!-~]{0,255}", "up to 255 printable characters without spaces"),
        "",
        doc="The user that the broker logs in as. It needs to read and write the keys under "
        "`/riverrun/CLUSTER/`. Empty is nobody, or whom the certificate names.",
    )
    password_file: Path | None = setting(
        Maybe(File(), "none"),
        doc="A file whose first line is the user's password. It is read again at every log-in, so a "
        "password can be changed while the broker runs.",
    )
    timeout_s: float = setting(
        Seconds(0.1, 60),
        5.0,
        doc="How long one call to etcd may take, the search for a member that answers included.",
    )
    start_timeout_s: float = setting(
        Seconds(0, 3600),
        30.0,
        doc="How long a broker that starts waits for an etcd that does not answer.",
    )
    confirm_store: bool = setting(
        Switch(),
        default=False,
        doc="Confirm that etcd holds the right metadata although it is another etcd than before, or "
        "an older state of it, after it was restored from a backup. Without it the broker refuses to "
        "start. Set it for one start.",
    )
