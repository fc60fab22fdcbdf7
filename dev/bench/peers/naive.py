"""A consumer as most people write it first: boto3 and psycopg, one message at a time, a commit each.

It masks in Python, by base64, and deletes a message once it is committed. Runs until it is killed.
"""

import base64
import datetime
import json
import os

import boto3
import psycopg


def mask(value):
    return None if value is None else base64.b64encode(value.encode()).decode()


def main():
    sqs = boto3.client("sqs")
    url = sqs.get_queue_url(QueueName=os.environ["QUEUE"])["QueueUrl"]
    with psycopg.connect() as session:
        while True:
            answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, AttributeNames=["SentTimestamp"])
            for message in answer.get("Messages", []):
                event = json.loads(message["Body"])
                sent = int(message["Attributes"]["SentTimestamp"]) / 1000
                session.execute(
                    """INSERT INTO user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version,
                                                create_date, message_id)
                       VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
                       ON CONFLICT DO NOTHING""",
                    (
                        event["user_id"],
                        event["device_type"],
                        mask(event["ip"]),
                        mask(event["device_id"]),
                        event["locale"],
                        int(event["app_version"].replace(".", "")),
                        datetime.datetime.fromtimestamp(sent, datetime.timezone.utc).date(),
                        message["MessageId"],
                    ),
                )
                session.commit()
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


if __name__ == "__main__":
    main()
