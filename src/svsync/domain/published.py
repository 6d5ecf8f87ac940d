"""Quotas and prices that providers publish, each with its page and the date it was looked up.

**Quotas.** What is taken of them is half: applications read their secrets from the same
account, vault or project, and are not to be throttled because svsync looks for changes. Where
one quota is for several classes of calls, those share its half; where one class falls under
several quotas, the smallest counts. Signing in has no published figure here and keeps the
default. `rate_limit` of a backend overrides each of them.

**Prices.** List prices in US dollars of the first tier, without free quotas, discounts and
taxes; other regions may differ by some cents.
"""

from typing import Final

from svsync.domain.costs import Prices, Terms
from svsync.domain.quotas import Limit, Operation

_BUT_LOGINS: Final[tuple[Operation, ...]] = ("list", "metadata", "read", "write", "delete")

AWS_SECRETS_MANAGER: Final = Terms(
    # "AWS Secrets Manager quotas" (docs.aws.amazon.com/secretsmanager/latest/userguide/
    # reference_limits.html), by account and region, a second: DescribeSecret and
    # GetSecretValue together 10,000; PutSecretValue and UpdateSecretVersionStage together 50.
    # The rest of its table was not to be had; the edition in awsdocs (doc_source/
    # reference_limits.md) has ListSecrets with ListSecretVersionIds 50, CreateSecret,
    # DeleteSecret and RestoreSecret 50 each. It is older than BatchGetSecretValue: a batch
    # gets what two pages of a listing do, and slows down where AWS asks for it.
    limits={
        "list": Limit(per_second=25),
        "metadata": Limit(per_second=2_500),
        "read": Limit(per_second=50),
        # A push is a put and the move of a label, of one quota; a delete has one of its own.
        "write": Limit(per_second=25),
        "delete": Limit(per_second=25),
    },
    # "AWS Secrets Manager Pricing" (aws.amazon.com/secrets-manager/pricing): 0.40 for a secret
    # and month, 0.05 for 10,000 API calls; as others quote it, for the page itself was not to
    # be had. A batch counts as one call here.
    prices=Prices(
        calls=dict.fromkeys(_BUT_LOGINS, 0.05),
        secret_month=0.40,
        source="AWS Secrets Manager Pricing, aws.amazon.com/secrets-manager/pricing",
        seen="2026-11-29",
    ),
)

AZURE_KEY_VAULT: Final = Terms(
    # "Azure Key Vault service limits" (learn.microsoft.com/azure/key-vault/general/
    # service-limits), by vault and region, in 10 seconds: 300 creations of secrets together
    # with imports of certificates and keys; 4,000 of all other transactions together.
    limits={
        "list": Limit(per_second=50),
        "metadata": Limit(per_second=40),
        "read": Limit(per_second=100),
        "write": Limit(per_second=15),
        "delete": Limit(per_second=10),
    },
    # "Key Vault pricing" (azure.microsoft.com/pricing/details/key-vault): 0.03 for 10,000
    # operations on secrets, as an answer on learn.microsoft.com quotes it (5608202); keeping
    # them is not billed.
    prices=Prices(
        calls=dict.fromkeys(_BUT_LOGINS, 0.03),
        secret_month=0.0,
        source="Key Vault pricing, azure.microsoft.com/pricing/details/key-vault",
        seen="2026-11-29",
    ),
)

GCP_SECRET_MANAGER: Final = Terms(
    # "Secret Manager quotas and limits" (docs.cloud.google.com/secret-manager/quotas), by
    # project and minute: 90,000 access requests; 600 read requests, which are listings and
    # metadata together; 600 write requests, deletes among them.
    limits={
        "list": Limit(per_second=2),
        "metadata": Limit(per_second=3),
        "read": Limit(per_second=750),
        "write": Limit(per_second=4),
        "delete": Limit(per_second=1),
    },
    # "Secret Manager pricing" (cloud.google.com/secret-manager/pricing): 0.03 for 10,000
    # access operations, management operations free; 0.06 for an active version, month and
    # location. A secret counts with one version in one location here, which is the least.
    prices=Prices(
        calls={"read": 0.03},
        secret_month=0.06,
        source="Secret Manager pricing, cloud.google.com/secret-manager/pricing",
        seen="2026-11-29",
    ),
)
