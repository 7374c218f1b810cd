"""Ways out: what each state of a stack means, why AWS failed, and what to type next."""

from __future__ import annotations

FRESH = ("REVIEW_IN_PROGRESS",)
FAILED_FIRST = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED")
STUCK = ("UPDATE_ROLLBACK_FAILED",)

WAYS_OUT = {
    "REVIEW_IN_PROGRESS": "a first deployment was given up before it began: 'muster deploy'",
    "CREATE_FAILED": "the first deployment failed; 'muster deploy' removes it and begins anew",
    "ROLLBACK_COMPLETE": "the first deployment failed; 'muster deploy' removes it and begins anew",
    "ROLLBACK_FAILED": "the first deployment failed and is not all removed; 'muster deploy' does "
    "that and begins anew",
    "DELETE_FAILED": "it is half deleted; 'muster destroy' goes on",
    "UPDATE_ROLLBACK_FAILED": "an update failed, and so did the way back; 'muster deploy' goes on "
    "with the way back, then deploys",
    "UPDATE_FAILED": "an update stopped half-way; 'muster deploy' repeats it",
    "UPDATE_ROLLBACK_COMPLETE": "the last update failed; the deployment before is in service, and "
    "'muster deploy' tries again",
    "IMPORT_ROLLBACK_COMPLETE": "tables or buckets could not be taken in again; 'muster deploy' "
    "tries again",
    "IMPORT_ROLLBACK_FAILED": "tables or buckets could not be taken in again; 'muster destroy "
    "--keep-data' removes the rest, then 'muster deploy'",
}
"""What each state that is not as it should be means, and the way out of it."""

LEFT_OVER = (
    "'muster destroy --keep-data' removes what is left of an earlier deployment, its data stays; "
    "then deploy again"
)

ALLOW = (
    "allow what the message names, then deploy again; packaging/deploy-policy.json has all that "
    "deploying needs"
)

VERIFY = (
    "deploy without it for now: 'muster deploy --no-edge'; meanwhile ask AWS Support to verify "
    "the account for CloudFront (Account and billing, free)"
)
"""New accounts may not make CloudFront distributions. AWS says so with 'Access denied'."""


def is_early(reason: str) -> bool:
    """Say whether a reason only says that another call knows it."""
    return any(word in reason for word in ("EarlyValidation", "DescribeEvents", "Validation fail"))


def way_out(status: str, reason: str, *, first: bool) -> str:
    """Say what to do about a failure that AWS explains, of the *first* deployment or another."""
    known = (
        ("must be verified before you can add", VERIFY),
        ("already exist", LEFT_OVER if first else "delete or rename it, then deploy again"),
        ("not authorized to perform", ALLOW),
        ("AccessDenied", ALLOW),
        ("UnreservedConcurrentExecution", "'muster deploy --param Concurrency=0' reserves none"),
        ("limit", "raise the quota, or choose smaller parameters; then deploy again"),
        ("No export named", "the template refers to something that is not there"),
    )
    for piece, hint in known:
        if piece.lower() in reason.lower():
            return hint
    if status in WAYS_OUT:
        return WAYS_OUT[status]
    return "mend what the message names and deploy again"
