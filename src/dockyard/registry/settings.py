"""Settings that administrators change at run time: names, what they mean, and their defaults."""

from __future__ import annotations

from dockyard.registry.database import Tx

SETTINGS: dict[str, tuple[str, str]] = {
    "domain": ("", "host name that clients use; shown in the pull instructions"),
    "gc_every_seconds": ("86400", "pause between two collections, 0 for never"),
    "untagged_seconds": ("", "age at which manifests without a tag are collected, empty for never"),
    "audit_days": ("365", "age at which the collector removes lines of the audit log, empty for never"),
    "deliveries_days": ("30", "the same for the history of webhooks"),
    "ldap": ("", "directory server, JSON: see `ldap.py`"),
    "ldap_sync_seconds": ("3600", "pause between two synchronisations of teams with the directory, 0 for never"),
    "tls": ("", "certificate and key that all replicas use, JSON: see `tls.py`"),
}


SECRET = frozenset({"ldap", "tls"})
"""Never shown or logged as they are."""


def read_setting(tx: Tx, name: str, default: str | None = None) -> str:
    row = tx.one("SELECT value FROM settings WHERE name = ?", (name,))
    if row is not None:
        return str(row[0])
    return SETTINGS[name][0] if default is None else default


def write_setting(tx: Tx, name: str, value: str) -> None:
    tx.run(
        "INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )
