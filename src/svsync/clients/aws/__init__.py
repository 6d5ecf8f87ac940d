"""A session with AWS, shared by whatever talks to one of its services."""

from svsync.clients.aws.refusals import AwsRefusedError, no_answer
from svsync.clients.aws.session import AwsSession
from svsync.clients.aws.settings import AwsSettings

__all__ = ["AwsRefusedError", "AwsSession", "AwsSettings", "no_answer"]
