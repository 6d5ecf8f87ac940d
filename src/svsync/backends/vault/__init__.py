"""HashiCorp Vault and OpenBao: the KV engines, versions 1 and 2."""

from svsync.backends.vault.driver import VaultDriver

__all__ = ["VaultDriver"]
