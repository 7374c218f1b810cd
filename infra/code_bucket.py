"""The code bucket: where packed code and templates are put for AWS to take, private and versioned.

It is not part of the stack, as the stack is made from what is in it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from infra.cloud import Cloud, code_of, explained
from infra.packing import Package
from muster.cli.output import Failure, say

KEPT_DAYS = 90
"""How long code that was replaced is kept, so that an older version can be gone back to."""


def check_ours(cloud: Cloud, name: str, hint: str = "") -> bool:
    """Say whether a bucket is there; raises `Failure` if it is somebody else's."""
    from botocore.exceptions import ClientError

    with explained(f"looking for the bucket {name}"):
        try:
            cloud.client("s3").head_bucket(Bucket=name, ExpectedBucketOwner=cloud.names.account)
        except ClientError as error:
            code = code_of(error)
            if code in ("404", "NoSuchBucket"):
                return False
            if code in ("403", "AccessDenied", "301", "PermanentRedirect"):
                raise Failure(
                    f"the bucket name {name} is taken, or these credentials may not see it",
                    hint or "another --stage has another name",
                ) from None
            raise
    return True


def upload(cloud: Cloud, package: Package, template: str) -> str:
    """Put code and template where AWS finds them; return the template's URL."""
    s3 = cloud.client("s3")
    bucket = cloud.names.code
    if not check_ours(cloud, bucket):
        _make(cloud, s3, bucket)
    with explained("uploading"):
        if not _there(s3, bucket, package.key):
            say(f"uploading {package.archive_bytes / 1_000_000:.1f} MB to {bucket}")
            s3.upload_file(str(package.archive), bucket, package.key)
        key = f"templates/{hashlib.sha256(template.encode()).hexdigest()[:32]}.json"
        s3.put_object(
            Bucket=bucket, Key=key, Body=template.encode(), ContentType="application/json"
        )
    return f"{s3.meta.endpoint_url}/{bucket}/{key}"


def _make(cloud: Cloud, s3: Any, name: str) -> None:
    """Make the bucket; a step that was missing is made good by the next deployment."""
    place = {"CreateBucketConfiguration": {"LocationConstraint": cloud.region}}
    with explained(f"making the bucket {name}"):
        s3.create_bucket(Bucket=name, **({} if cloud.region == "us-east-1" else place))
        s3.get_waiter("bucket_exists").wait(Bucket=name)
        s3.put_public_access_block(
            Bucket=name,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        rule = {
            "ID": "forget-old-code",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": KEPT_DAYS},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        }
        s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [rule]})
        tags = [{"Key": key, "Value": value} for key, value in cloud.names.tags.items()]
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
    say(f"made the bucket {name}")


def empty(cloud: Cloud, name: str) -> int:
    """Delete every version of everything in a bucket; return how many there were."""
    s3, gone = cloud.client("s3"), 0
    with explained(f"emptying {name}"):
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
            found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
            if objects:
                answer = s3.delete_objects(Bucket=name, Delete={"Objects": objects, "Quiet": True})
                for error in answer.get("Errors", ()):
                    raise Failure(f"{name}: {error['Key']} cannot be deleted: {error['Message']}")
            gone += len(objects)
    return gone


def _there(s3: Any, bucket: str, key: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchKey"):
            return False
        raise
    return True
