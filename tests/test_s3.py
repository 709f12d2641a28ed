"""The gateway as S3 clients see it: listing, downloading, ranges, refusals."""

import io
import re
import time

import botocore.exceptions
import botocore.session
import minio
import pyarrow.parquet
import pytest
import requests
from botocore import UNSIGNED
from botocore.config import Config
from stack import clients, records

BUCKET = "hotset"
VALUES = 500


@pytest.fixture(scope="module")
def topic(broker, isk):
    """Two partitions of raw bytes."""
    name = records.create_topic(broker.bootstrap, "files", 2)
    writer = records.producer(broker.bootstrap)
    for partition in range(2):
        records.produce(writer, name, [b"%d" % n for n in range(VALUES)], partition=partition)
    return name


@pytest.fixture(scope="module")
def s3(isk):
    return clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key)


@pytest.fixture(scope="module")
def objects(s3, topic):
    """What a listing says: key to size."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{topic}/", PaginationConfig={"PageSize": 2})
    listed = {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}
    assert sum("/data/" in key for key in listed) == 2
    return listed


@pytest.fixture(scope="module")
def data_key(objects):
    return next(key for key in objects if "/data/" in key)


def refusal(call, *arguments, **named):
    """Status and code of a call that must fail."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(*arguments, **named)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_buckets_and_folders_are_listed(s3, topic):
    assert BUCKET in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    top = s3.list_objects_v2(Bucket=BUCKET, Delimiter="/")
    assert f"{topic}/" in [prefix["Prefix"] for prefix in top["CommonPrefixes"]]
    below = s3.list_objects_v2(Bucket=BUCKET, Delimiter="/", Prefix=f"{topic}/")
    assert {f"{topic}/data/", f"{topic}/metadata/"} <= {prefix["Prefix"] for prefix in below["CommonPrefixes"]}


def test_listed_sizes_are_true(s3, objects):
    for key, size in objects.items():
        head, got = s3.head_object(Bucket=BUCKET, Key=key), s3.get_object(Bucket=BUCKET, Key=key)
        assert head["ContentLength"] == got["ContentLength"] == len(got["Body"].read()) == size, key
        assert head["ETag"] == got["ETag"]
        assert head["LastModified"] == got["LastModified"]


def test_boto3_downloads_open_as_parquet(s3, objects, tmp_path):
    rows = 0
    for key in (key for key in objects if "/data/" in key):
        s3.download_file(BUCKET, key, tmp_path / "file.parquet")
        table = pyarrow.parquet.read_table(tmp_path / "file.parquet")
        assert sorted(int(value) for value in table["kafka_value"].to_pylist()) == list(range(VALUES))
        rows += table.num_rows
    assert rows == 2 * VALUES


def test_minio_lists_and_downloads(minio_s3, s3, topic, tmp_path):
    listed = {item.object_name: item.size for item in minio_s3.list_objects(BUCKET, f"{topic}/", recursive=True)}
    assert listed == {item["Key"]: item["Size"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{topic}/")["Contents"]}
    for key in (key for key in listed if "/data/" in key):
        minio_s3.fget_object(BUCKET, key, str(tmp_path / "file.parquet"))
        assert pyarrow.parquet.read_table(tmp_path / "file.parquet").num_rows == VALUES
    with pytest.raises(minio.error.S3Error) as caught:
        minio_s3.put_object(BUCKET, "x", io.BytesIO(b"x"), 1)
    assert caught.value.code == "AccessDenied"


def test_ranges_are_pieces_of_the_whole(s3, objects, data_key):
    size = objects[data_key]
    whole = s3.get_object(Bucket=BUCKET, Key=data_key)["Body"].read()
    assert whole[:4] == whole[-4:] == b"PAR1"
    for asked, first, last in [
        ("0-3", 0, 3),
        ("100-2000", 100, 2000),
        (f"{size - 8}-{size - 1}", size - 8, size - 1),
        (f"{size - 8}-{size + 1000}", size - 8, size - 1),
        (f"{size - 100}-", size - 100, size - 1),
        ("0-", 0, size - 1),
        ("-8", size - 8, size - 1),
        (f"-{size * 2}", 0, size - 1),
        (f"{size // 2}-{size // 2}", size // 2, size // 2),
    ]:
        answer = s3.get_object(Bucket=BUCKET, Key=data_key, Range=f"bytes={asked}")
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206, asked
        assert answer["ContentRange"] == f"bytes {first}-{last}/{size}", asked
        assert answer["Body"].read() == whole[first : last + 1], asked
    assert refusal(s3.get_object, Bucket=BUCKET, Key=data_key, Range=f"bytes={size}-") == (416, "InvalidRange")
    assert refusal(s3.get_object, Bucket=BUCKET, Key=data_key, Range="bytes=-0") == (416, "InvalidRange")


@pytest.mark.parametrize("malformed", ["bytes=a-b", "bytes=9-3", "bytes=", "bytes=--1", "bytes=1-2-3"])
def test_a_malformed_range_is_no_partial_answer(s3, objects, data_key, malformed):
    """RFC 9110 lets a server ignore it or refuse it; a 206 of anything would be made up."""
    try:
        answer = s3.get_object(Bucket=BUCKET, Key=data_key, Range=malformed)
    except botocore.exceptions.ClientError as refused:
        assert refused.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 416)
    else:
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
        assert answer["ContentLength"] == objects[data_key]


def test_conditions(s3, data_key):
    tag = s3.head_object(Bucket=BUCKET, Key=data_key)["ETag"]
    assert s3.get_object(Bucket=BUCKET, Key=data_key, IfMatch=tag)["ETag"] == tag
    assert refusal(s3.get_object, Bucket=BUCKET, Key=data_key, IfNoneMatch=tag)[0] == 304
    assert refusal(s3.get_object, Bucket=BUCKET, Key=data_key, IfMatch='"other"')[0] == 412


def test_writes_are_refused(s3, data_key):
    denied = (403, "AccessDenied")
    assert refusal(s3.put_object, Bucket=BUCKET, Key="x", Body=b"x") == denied
    assert refusal(s3.delete_object, Bucket=BUCKET, Key=data_key) == denied
    assert refusal(s3.delete_objects, Bucket=BUCKET, Delete={"Objects": [{"Key": data_key}]}) == denied
    assert refusal(s3.create_multipart_upload, Bucket=BUCKET, Key="x") == denied
    assert refusal(s3.create_bucket, Bucket="another") == denied


def test_only_signed_requests_are_answered(isk, data_key):
    wrong = clients.boto3_client(isk.s3_endpoint, isk.access_key, "not-the-secret")
    assert refusal(wrong.get_object, Bucket=BUCKET, Key=data_key) == (403, "SignatureDoesNotMatch")
    unknown = clients.boto3_client(isk.s3_endpoint, "nobody", isk.secret_key)
    assert refusal(unknown.get_object, Bucket=BUCKET, Key=data_key) == (403, "InvalidAccessKeyId")
    anonymous = botocore.session.get_session().create_client(
        "s3", endpoint_url=isk.s3_endpoint, region_name=clients.REGION, config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"})
    )
    assert refusal(anonymous.get_object, Bucket=BUCKET, Key=data_key) == (403, "AccessDenied")
    assert refusal(anonymous.list_objects_v2, Bucket=BUCKET) == (403, "AccessDenied")


def test_an_expired_signature_is_refused(isk, s3, data_key):
    signer = clients.boto3_client(isk.s3_endpoint, isk.access_key, isk.secret_key, signature_version="s3v4")
    link = signer.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": data_key}, ExpiresIn=60)
    assert requests.get(link, headers={"Range": "bytes=0-3"}, timeout=30).content == b"PAR1"
    date = link.split("X-Amz-Date=")[1][:8]
    stale = requests.get(link.replace(f"X-Amz-Date={date}", "X-Amz-Date=20200101"), timeout=30)
    assert stale.status_code == 403


def test_unknown_and_malformed_keys(s3, topic, data_key):
    for key in (
        "nothing",
        f"{topic}/nothing",
        f"{topic}/data/nothing.parquet",
        f"{topic}/metadata/none.metadata.json",
        data_key.replace("-e", "-x"),
        data_key.replace(topic, "no_such_topic"),
        data_key[:-1],
        "a" * 1000,
        "../../etc/passwd",
        f"{topic}/metadata/../../../etc/passwd",
    ):
        assert refusal(s3.get_object, Bucket=BUCKET, Key=key) == (404, "NoSuchKey"), key
        assert refusal(s3.head_object, Bucket=BUCKET, Key=key)[0] == 404, key
    assert refusal(s3.get_object, Bucket="no-such-bucket", Key=data_key) == (404, "NoSuchBucket")
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="no_such_topic/")["KeyCount"] == 0


def test_names_that_promise_what_the_log_does_not_have(s3, data_key):
    """They are answered at once: nobody waits for records that no plan has seen, in the place of who reads what is there."""
    start, end = re.search(r"/(\d{19})-(\d{19})-", data_key).groups()
    begun = time.monotonic()
    for end_promised in (int(end) + 1, 2**62):
        key = data_key.replace(f"{start}-{end}", f"{start}-{end_promised:019}")
        assert refusal(s3.get_object, Bucket=BUCKET, Key=key) == (410, "RecordsExpired"), key
    for partition in (2, 99_999):
        key = re.sub(r"/\d{5}/", f"/{partition:05}/", data_key)
        assert refusal(s3.get_object, Bucket=BUCKET, Key=key) == (404, "NoSuchKey"), key
    assert time.monotonic() - begun < 10
