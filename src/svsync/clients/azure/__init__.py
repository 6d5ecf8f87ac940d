"""A session with one Azure Key Vault, shared by whatever talks to it."""

from svsync.clients.azure.answers import Answer
from svsync.clients.azure.refusals import AzureRefusedError
from svsync.clients.azure.session import AzureSession
from svsync.clients.azure.settings import AzureSettings

__all__ = ["Answer", "AzureRefusedError", "AzureSession", "AzureSettings"]
