"""The configuration that the demo runs by: one OpenBao, federated as six backends; and one
more that stores nothing, where it is kept up afterwards."""

import json
from pathlib import Path
from typing import Final

_CONFIG: Final = """\
# Written by `svsync demo`: one OpenBao, federated as several backends.
state_dir: {state}
allow_loopback: true     # the demo's OpenBao listens on this machine only

backends:
"""
_BACKEND: Final = """\
  - id: fed_{name}
    name: {name}
    type: hashicorp-vault
    config:
      endpoint: {endpoint}
      auth_method: approle
      auth_config_path: {credential}
      tls_verify: {ca}
    path_mapping:
      - {{local: "{local}/**", remote: "{remote}/**"}}
    mode: {mode}
{settings}
"""
_BACKENDS: Final = (
    (
        "platform",
        "external/platform",
        "platform/data",
        ("conflict_resolution: backend_wins", "on_remote_delete: retain"),
    ),
    (
        "payments",
        "external/payments",
        "payments/data",
        (
            "conflict_resolution: local_wins",
            "remote_changes: pull     # local_wins alone holds what changes there",
            "on_remote_delete: soft_delete",
        ),
    ),
    (
        "legacy",
        "external/legacy",
        "legacy",
        ("conflict_resolution: manual", "on_remote_delete: retain"),
    ),
    (
        "shared",
        "external/shared",
        "shared/data",
        (
            "conflict_resolution: backend_wins",
            "writes: write_through     # OpenBao takes a write, or it is refused",
            "propagate_deletes: true",
        ),
    ),
    (
        "handover",
        "external/handover",
        "handover/data",
        ("conflict_resolution: manual", "writes: write_through"),
    ),
    (
        "backup",
        "primary",
        "backup/data",
        (
            "conflict_resolution: local_wins     # here is the primary, there the backup",
            "writes: write_through",
        ),
    ),
)
"""Name, local prefix, remote prefix, settings."""
LIVE: Final = "external/live"
"""Where reads go through to the mount of `fed_platform`."""


def write_config(
    folder: Path, endpoint: str, cable: str, ca: Path, login: str, *, live: bool
) -> Path:
    """svsync.yaml, and the login that it refers to in a file that only we can read.

    `cable` is the URL by which `fed_shared` reaches the same OpenBao; `live` adds a backend
    in proxy mode.
    """
    credential, config = folder / "approle.json", folder / "svsync.yaml"
    credential.touch(mode=0o600, exist_ok=False)
    credential.write_text(login, encoding="utf-8")
    text = _CONFIG.format(state=json.dumps(str(folder / "state")))
    proxied = (("live", LIVE, "platform/data", ()),) if live else ()
    for name, local, remote, settings in (*_BACKENDS, *proxied):
        text += _BACKEND.format(
            name=name,
            local=local,
            remote=remote,
            mode="proxy" if local == LIVE else "sync",
            settings="".join(f"    {line}\n" for line in settings),
            endpoint=json.dumps(cable if name == "shared" else endpoint),
            credential=json.dumps(f"file:{credential}"),
            ca=json.dumps(str(ca)),
        )
    config.write_text(text, encoding="utf-8")
    return config
