"""What a Key Vault does, in memory: the rules of secrets, each with the page it is from.

Pages are named as on learn.microsoft.com: [title, path below azure/ or rest/api/keyvault/].
Where no page says it, the comment does. It is told what is asked by `tests.azure_fake`.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

NAME: Final = re.compile(r"[0-9A-Za-z-]{1,127}")
MAX_VALUE: Final = 25 * 1024
MAX_TAGS: Final = 15
PAGE: Final = 25
PERMISSIONS: Final = frozenset({"get", "list", "set", "delete", "recover"})
"""[About Azure Key Vault secrets, key-vault/secrets/about-secrets]"""


class Refusal(Exception):
    """An error of Key Vault [Azure Key Vault REST API error codes,
    key-vault/general/rest-error-codes]."""

    def __init__(self, status: int, code: str, inner: str = "") -> None:
        super().__init__(f"{status} {code} {inner}")
        error: Json = {"code": code, "message": "told in words"}
        if inner:
            error["innererror"] = {"code": inner}
        self.status = status
        self.body: Json = {"error": error}


def not_found() -> Refusal:
    return Refusal(404, "SecretNotFound")


@dataclass
class Version:
    """Whole seconds since 1970 [Get Secret, rest/api/keyvault/secrets/get-secret]."""

    id: str
    value: str
    created: int
    updated: int
    enabled: bool = True
    exp: int | None = None
    nbf: int | None = None
    tags: dict[str, str] | None = None
    content_type: str | None = None


@dataclass
class Secret:
    """Its versions in the order in which they were made."""

    name: str
    versions: list[Version] = field(default_factory=list)
    managed: bool = False
    deleted_at: int = 0

    @property
    def newest(self) -> Version:
        return self.versions[-1]


@dataclass
class Vault:
    """One vault.

    Attributes:
        tenant: the directory whose tokens it takes.
        now: its clock, which a test moves; `pace` seconds pass before each set.
        lag: looks for which a deletion or a recovery does not show.
        permissions: what the caller may; `denied`: (permission, name) that it may not.
        forbids: an inner code for every call: ForbiddenByFirewall and the like.
        policy: names that a policy of the vault forbids to set.
        soft_delete: off in vaults that are old.
    """

    name: str
    tenant: str
    now: int = 1_800_000_000
    pace: int = 3
    lag: int = 0
    permissions: set[str] = field(default_factory=lambda: set(PERMISSIONS))
    denied: set[tuple[str, str]] = field(default_factory=set)
    forbids: str = ""
    policy: set[str] = field(default_factory=set)
    soft_delete: bool = True
    live: dict[str, Secret] = field(default_factory=dict)
    deleted: dict[str, Secret] = field(default_factory=dict)
    _unseen: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://{self.name}.vault.azure.net"

    # --- the routes ---------------------------------------------------------------

    def handle(self, method: str, path: str, query: Mapping[str, str], body: Json) -> Any:
        """What is answered; None: 204. Raises Refusal."""
        if self.forbids:
            raise Refusal(403, "Forbidden", self.forbids)
        if not query.get("api-version"):
            raise Refusal(400, "BadParameter")
        match [method, *path.strip("/").split("/")]:
            case ["GET", "secrets"]:
                self._may("list", "")
                return self._page("secrets", query, list(self.live.values()))
            case ["GET", "secrets", name, "versions"]:
                self._may("list", name)
                return self._versions(name, query)
            case ["GET", "secrets", name]:
                return self._get(name, None)
            case ["GET", "secrets", name, version]:
                return self._get(name, version)
            case ["PUT", "secrets", name]:
                self._may("set", name)
                return self._set(name, body)
            case ["PATCH", "secrets", name, version]:
                # [Update Secret]: requires the secrets/set permission.
                self._may("set", name)
                return self._update(name, version, body)
            case ["DELETE", "secrets", name]:
                self._may("delete", name)
                return self._delete(name)
            case ["GET", "deletedsecrets"]:
                self._may("list", "")
                return self._page("deletedsecrets", query, list(self.deleted.values()))
            case ["GET", "deletedsecrets", name]:
                # [Get Deleted Secret]: requires the secrets/get permission.
                self._may("get", name)
                return self._deleted_item(self._of_deleted(name))
            case ["POST", "deletedsecrets", name, "recover"]:
                self._may("recover", name)
                return self._recover(name)
            case ["DELETE", "deletedsecrets", name]:
                # [Purge Deleted Secret]
                self._may("purge", name)
                self._of_deleted(name)
                del self.deleted[name.lower()]
                return None
        raise Refusal(405, "MethodNotAllowed")

    def _may(self, permission: str, name: str) -> None:
        if permission not in self.permissions or (permission, name) in self.denied:
            raise Refusal(403, "Forbidden", "AccessDenied")

    def _get(self, name: str, version: str | None) -> Json:
        self._may("get", name)
        secret = self._of_live(name)
        found = secret.newest
        if version:
            one = [v for v in secret.versions if v.id == version]
            if not one:
                raise not_found()
            found = one[0]
        if not found.enabled:
            # Seen in many reports: "Operation get is not allowed on a disabled secret".
            raise Refusal(403, "Forbidden", "SecretDisabled")
        # Also outside of nbf and exp [About Azure Key Vault secrets: date-time controlled
        # operations].
        return {**self._item(secret, found, with_version=True), "value": found.value}

    def _set(self, name: str, body: Json) -> Json:
        if not NAME.fullmatch(name):
            raise Refusal(400, "BadParameter")
        self._check(body)
        value = body.get("value")
        if not isinstance(value, str) or len(value.encode()) > MAX_VALUE:
            raise Refusal(400, "BadParameter")
        if name in self.policy:
            raise Refusal(403, "Forbidden", "ForbiddenByPolicy")
        if name.lower() in self.deleted:
            raise Refusal(409, "Conflict", "ObjectIsDeletedButRecoverable")
        if self._hidden(name):
            raise Refusal(409, "Conflict", "ObjectIsBeingRecovered")
        self.now += self.pace
        secret = self.add(name, value, tags=body.get("tags"), content_type=body.get("contentType"))
        self._set_attributes(secret.newest, body)
        return {**self._item(secret, secret.newest, with_version=True), "value": value}

    def _update(self, name: str, version: str, body: Json) -> Json:
        """What is not named stays as it is; tags are one thing [Update Secret]."""
        secret = self._of_live(name)
        found = [v for v in secret.versions if v.id == version]
        if not found:
            raise not_found()
        self._check(body)
        if "tags" in body:
            found[0].tags = dict(body["tags"])
        if "contentType" in body:
            found[0].content_type = body["contentType"]
        self._set_attributes(found[0], body)
        found[0].updated = self.now
        return self._item(secret, found[0], with_version=True)

    def _check(self, body: Json) -> None:
        """[About Azure Key Vault secrets: secret tags]; contentType: 255 characters there."""
        tags = body.get("tags") or {}
        sizes = [len(text) for pair in tags.items() for text in pair]
        if len(tags) > MAX_TAGS or any(size > 512 for size in sizes):
            raise Refusal(400, "BadParameter")
        if len(body.get("contentType") or "") > 255:
            raise Refusal(400, "BadParameter")

    def _set_attributes(self, version: Version, body: Json) -> None:
        told = body.get("attributes") or {}
        version.enabled = told.get("enabled", version.enabled)
        version.exp = told.get("exp", version.exp)
        version.nbf = told.get("nbf", version.nbf)

    def _delete(self, name: str) -> Json:
        """Applies to the secret with all its versions [Delete Secret]."""
        secret = self._of_live(name)
        if secret.managed:
            raise Refusal(403, "Forbidden", "OperationNotAllowed")
        del self.live[name.lower()]
        if not self.soft_delete:
            return self._item(secret, secret.newest, with_version=True)
        secret.deleted_at = self.now
        self.deleted[name.lower()] = secret
        self._unseen[name.lower()] = self.lag
        return self._deleted_item(secret)

    def _recover(self, name: str) -> Json:
        """[Recover Deleted Secret]"""
        if self._hidden(name):
            raise Refusal(409, "Conflict", "ObjectIsBeingDeleted")
        secret = self._of_deleted(name)
        del self.deleted[name.lower()]
        self.live[name.lower()] = secret
        self._unseen[name.lower()] = self.lag
        return self._item(secret, secret.newest, with_version=True)

    # --- listings -----------------------------------------------------------------

    def _page(self, kind: str, query: Mapping[str, str], found: list[Secret]) -> Json:
        """Identifiers without a version, and attributes [Get Secrets, Get Deleted Secrets]:
        those of the newest version."""
        shown = [secret for secret in found if not self._unseen.get(secret.name.lower())]
        items = [
            self._deleted_item(secret, with_version=False)
            if kind == "deletedsecrets"
            else self._item(secret, secret.newest)
            for secret in sorted(shown, key=lambda one: one.name.lower())
        ]
        return self._cut(f"/{kind}", query, items)

    def _versions(self, name: str, query: Mapping[str, str]) -> Json:
        """In the order of their ids, as is seen; no page says it. For a name that is not
        there no page says what is answered, either."""
        secret = self._of_live(name)
        ordered = sorted(secret.versions, key=lambda one: one.id)
        items = [self._item(secret, version, with_version=True) for version in ordered]
        return self._cut(f"/secrets/{name}/versions", query, items)

    def _cut(self, path: str, query: Mapping[str, str], items: list[Json]) -> Json:
        """At most 25 a page [Get Secrets: maxresults]; the link to the next one is whole, and
        there is none after the last."""
        most = int(query.get("maxresults", PAGE))
        if not 1 <= most <= PAGE:
            raise Refusal(400, "BadParameter")
        start = int(query.get("$skiptoken", "0"))
        after = start + most
        link = None
        if after < len(items):
            version = query["api-version"]
            link = (
                f"{self.url}:443{path}?api-version={version}&$skiptoken={after}&maxresults={most}"
            )
        return {"value": items[start:after], "nextLink": link}

    def _item(self, secret: Secret, version: Version, *, with_version: bool = False) -> Json:
        level = "Recoverable+Purgeable" if self.soft_delete else "Purgeable"
        attributes: Json = {
            "enabled": version.enabled,
            "created": version.created,
            "updated": version.updated,
            "recoveryLevel": level,
            "recoverableDays": 90,
        }
        for key, second in (("exp", version.exp), ("nbf", version.nbf)):
            if second is not None:
                attributes[key] = second
        # As it was made, whatever case it was asked for in. No page says so.
        address = f"{self.url}/secrets/{secret.name}"
        item: Json = {"id": address, "attributes": attributes}
        if with_version:
            item["id"] += f"/{version.id}"
        if version.tags:
            item["tags"] = dict(version.tags)
        if version.content_type:
            item["contentType"] = version.content_type
        if secret.managed:
            item["managed"] = True
        return item

    def _deleted_item(self, secret: Secret, *, with_version: bool = True) -> Json:
        item = self._item(secret, secret.newest, with_version=with_version)
        item["recoveryId"] = f"{self.url}/deletedsecrets/{secret.name}"
        item["deletedDate"] = secret.deleted_at
        item["scheduledPurgeDate"] = secret.deleted_at + 90 * 86400
        return item

    # --- what is there ------------------------------------------------------------

    def _of_live(self, name: str) -> Secret:
        """Names are the same in any case [Azure Key Vault keys, secrets and certificates
        overview, key-vault/general/about-keys-secrets-certificates]."""
        if name.lower() not in self.live or self._hidden(name):
            raise not_found()
        return self.live[name.lower()]

    def _of_deleted(self, name: str) -> Secret:
        if name.lower() not in self.deleted or self._hidden(name):
            raise not_found()
        return self.deleted[name.lower()]

    def _hidden(self, name: str) -> bool:
        """Is a deletion or a recovery still under way? Each look brings it nearer."""
        left = self._unseen.get(name.lower(), 0)
        if left:
            self._unseen[name.lower()] = left - 1
        return left > 0

    # --- hands --------------------------------------------------------------------

    def add(self, name: str, value: str, **settings: Any) -> Secret:
        """A new version, now."""
        secret = self.live.setdefault(name.lower(), Secret(name))
        version = Version(uuid.uuid4().hex, value, self.now, self.now, **settings)
        secret.versions.append(version)
        return secret

    def put(self, name: str, value: str, **settings: Any) -> Version:
        """What a person does: make a version, whatever stood there, at a time of its own."""
        self.now += 10
        if name.lower() in self.deleted:
            self.restore(name)
        made = self.add(name, value, **settings).newest
        self.now += 10
        return made

    def touch(self, name: str, **changes: Any) -> None:
        """Change attributes or tags of the newest version."""
        self.now += 10
        newest = self.live[name.lower()].newest
        for key, told in changes.items():
            setattr(newest, key, told)
        newest.updated = self.now
        self.now += 10

    def delete(self, name: str) -> None:
        self.now += 10
        secret = self.live.pop(name.lower())
        secret.deleted_at = self.now
        self.deleted[name.lower()] = secret

    def restore(self, name: str) -> None:
        self.now += 10
        self.live[name.lower()] = self.deleted.pop(name.lower())

    def remove(self, name: str) -> None:
        """For good."""
        self.now += 10
        self.live.pop(name.lower(), None)
        self.deleted.pop(name.lower(), None)

    def value(self, name: str) -> str:
        return self.live[name.lower()].newest.value

    def tags(self, name: str) -> dict[str, str]:
        return dict(self.live[name.lower()].newest.tags or {})

    def values(self, name: str) -> Iterator[str]:
        return (version.value for version in self.live[name.lower()].versions)
