"""An S3 server that checks policies, for as long as standard input stays open.

Takes the policy of a user and the lifecycle of the bucket as arguments; prints where it is and the
user's key as JSON.
"""

import json
import os
import sys

# Whatever is asked before this many actions is granted: they make bucket and user.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "5"

import boto3
import serial_moto  # noqa: F401
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"
connection = {
    "endpoint_url": endpoint,
    "region_name": "us-east-1",
    "aws_access_key_id": "root",
    "aws_secret_access_key": "root",
}
s3 = boto3.client("s3", **connection)
s3.create_bucket(Bucket="bucket")
s3.put_bucket_lifecycle_configuration(
    Bucket="bucket", LifecycleConfiguration=json.loads(sys.argv[2])
)
iam = boto3.client("iam", **connection)
iam.create_user(UserName="lake")
iam.put_user_policy(UserName="lake", PolicyName="lake", PolicyDocument=sys.argv[1])
key = iam.create_access_key(UserName="lake")["AccessKey"]
settings = {"endpoint": endpoint, "id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
print(json.dumps(settings), flush=True)
sys.stdin.read()
server.stop()
