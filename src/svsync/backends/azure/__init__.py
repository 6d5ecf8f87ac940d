"""Azure Key Vault."""

from svsync.backends.azure.driver import AzureDriver

__all__ = ["AzureDriver"]
