"""AWS Secrets Manager."""

from svsync.backends.aws.driver import AwsDriver

__all__ = ["AwsDriver"]
