"""What each change feed takes under `events`, and which type of backend it serves."""

import ipaddress
import re
from collections.abc import Mapping

from svsync.config.document import Node
from svsync.config.kinds import REFERENCE, Key, Kind, text, text_of


def _read_listen(node: Node) -> str:
    value = text_of(node, "an address to listen on")
    scheme, _, rest = value.partition(":")
    if scheme in ("unix", "file") and rest.startswith("/"):
        return value
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and re.fullmatch(r"[0-9]{1,5}", port) and int(port) < 65536:
        try:
            if ipaddress.ip_address(host.strip("[]")).is_loopback:
                return value
        except ValueError:
            pass
    raise node.error(
        "must be unix:/path, file:/path or tcp: with a loopback address and port, "
        "such as tcp:127.0.0.1:9390"
    )


LISTEN = Kind(
    _read_listen,
    {"type": "string", "pattern": "^(unix:/.+|file:/.+|tcp:.+:[0-9]{1,5})$"},
    "`unix:/path`, `tcp:127.0.0.1:port` or `file:/path`",
)

DIRECTORY = text(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "an id such as 72f988bf-86f1-41af-91ab-2d7cd011db47, in small letters",
)
"""The id of a directory, or of an application in one."""

_QUEUE_REGION = re.compile(r"https?://(?:[a-z0-9-]+\.)?sqs(?:-fips)?\.([a-z0-9-]+)\.[a-z]")


def queue_region(url: str) -> str | None:
    """The region in a queue's URL; None: it is none of AWS's own names."""
    named = _QUEUE_REGION.match(url)
    return named[1] if named else None


FEEDS: Mapping[str, tuple[str, tuple[Key, ...]]] = {
    "vault-audit": (
        "hashicorp-vault",
        (
            Key(
                "listen",
                LISTEN,
                "Where Vault's or OpenBao's audit device writes to, or the file it writes; "
                "never let it be the only audit device. Backends that name the same address "
                "share it.",
                required=True,
                file_only=True,
            ),
        ),
    ),
    "vault-events": ("hashicorp-vault", ()),
    "aws-sqs": (
        "aws-secrets-manager",
        (
            Key(
                "queue_url",
                text(
                    r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[0-9]{12}/[A-Za-z0-9_-]{1,80}(\.fifo)?",
                    "a queue's URL such as https://sqs.us-east-1.amazonaws.com/123456789012/svsync",
                ),
                "The queue that EventBridge sends the events of Secrets Manager to, in the region "
                "of the secrets. Backends of one login that name it share it.",
                required=True,
            ),
        ),
    ),
    "gcp-pubsub": (
        "gcp-secret-manager",
        (
            Key(
                "subscription",
                text(
                    r"projects/[a-z0-9][a-z0-9.:-]*[a-z0-9]/subscriptions"
                    r"/[A-Za-z][A-Za-z0-9_.~+%-]{2,254}",
                    "a subscription such as projects/acme/subscriptions/svsync",
                ),
                "The subscription to the topic that the secrets tell of their changes. Backends "
                "of one login that name it share it.",
                required=True,
            ),
        ),
    ),
    "azure-eventgrid": (
        "azure-key-vault",
        (
            Key(
                "secret_path",
                REFERENCE,
                "Where the feed's secret is kept for whoever sets up the subscription; svsync "
                "reads nothing there.",
            ),
            Key(
                "entra_tenant_id",
                DIRECTORY,
                "The directory (Entra tenant) whose tokens Event Grid may bring in place of the "
                "feed's secret; with `entra_audience`, and in Azure's public cloud alone.",
                file_only=True,
            ),
            Key(
                "entra_audience",
                text(r"[!-~]{1,255}", "an application's id, or its id URI such as api://…"),
                "The application that those tokens are for, as their claim `aud` has it. Let no "
                "other service take tokens for it.",
                file_only=True,
            ),
            Key(
                "entra_app_id",
                DIRECTORY,
                "The application that those tokens were given to: that of Event Grid is "
                "`4962773b-9cdb-44cf-a8bf-237846a00ab7`. Without it, any application of the "
                "directory may tell of changes that gets a token for the audience.",
                file_only=True,
            ),
        ),
    ),
    "http": ("", ()),
}
"""Feed → the type of backend it serves, empty for any, and the keys beside `feed`."""
