"""A Python consumer as quick as plain boto3 and psycopg make it: ten messages a call, threads, COPY, batched deletes.

    best.py [--processes N] [--threads N] [--batch N] [--masks inbox|python]

Each thread gathers a batch, stores it by COPY in one transaction and deletes it, with a connection of its own. The
defaults are what was quickest on two cores. Tried were 1, 2 and 3 processes (one is held back by Python's lock: 0.6 of
the rate of two), 1 to 8 threads in each, batches of 100 to 2,000, and masks made in Python: within the spread, that
is as quick as the inbox, which looks for duplicates and keeps rejects besides.

It leaves out what the loader does besides: it extends no leases, tries nothing again, and one message that the
database refuses would stop it. Runs until it is killed.
"""

import argparse
import base64
import datetime
import json
import multiprocessing
import os
import threading

import boto3
import botocore.config
import psycopg

UTC = datetime.timezone.utc


def by_inbox(session, messages):
    """The extension parses, masks, and leaves out what is there."""
    with session.cursor().copy("COPY login_inbox (message_id, sent_at, body) FROM STDIN") as rows:
        for message in messages:
            sent = datetime.datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC)
            rows.write_row((message["MessageId"], sent, message["Body"]))


def by_python(session, messages):
    """Parsed and masked here, through a table in between, since COPY itself would fail on what is there."""
    session.execute("CREATE TEMP TABLE IF NOT EXISTS batch (LIKE user_logins) ON COMMIT DELETE ROWS")
    columns = "user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date, message_id"
    with session.cursor().copy(f"COPY batch ({columns}) FROM STDIN") as rows:
        for message in messages:
            event = json.loads(message["Body"])
            sent = int(message["Attributes"]["SentTimestamp"]) / 1000
            rows.write_row(
                (
                    event["user_id"],
                    event["device_type"],
                    mask(event["ip"]),
                    mask(event["device_id"]),
                    event["locale"],
                    int(event["app_version"].replace(".", "")),
                    datetime.datetime.fromtimestamp(sent, UTC).date(),
                    message["MessageId"],
                )
            )
    session.execute(f"INSERT INTO user_logins ({columns}) SELECT {columns} FROM batch ON CONFLICT DO NOTHING")


def mask(value):
    return None if value is None else base64.b64encode(value.encode()).decode()


def consume(sqs, url, size, store):
    with psycopg.connect() as session:
        while True:
            batch = []
            while len(batch) < size:
                answer = sqs.receive_message(
                    QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["SentTimestamp"]
                )
                messages = answer.get("Messages", [])
                batch += messages
                if not messages:
                    break
            if batch:
                store(session, batch)
                session.commit()
            for begin in range(0, len(batch), 10):
                ten = enumerate(batch[begin : begin + 10])
                entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in ten]
                sqs.delete_message_batch(QueueUrl=url, Entries=entries)


def process(options):
    # Clients may be shared by threads. Without the checks of parameters, as one would once it works.
    config = botocore.config.Config(parameter_validation=False, max_pool_connections=options.threads)
    sqs = boto3.client("sqs", config=config)
    url = sqs.get_queue_url(QueueName=os.environ["QUEUE"])["QueueUrl"]
    store = {"inbox": by_inbox, "python": by_python}[options.masks]
    threads = [
        threading.Thread(target=consume, args=(sqs, url, options.batch, store)) for _ in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--masks", choices=("inbox", "python"), default="inbox")
    options = parser.parse_args()
    # Children end with their parent's group: the process that started us ends that.
    for _ in range(options.processes - 1):
        multiprocessing.Process(target=process, args=(options,), daemon=True).start()
    process(options)


if __name__ == "__main__":
    main()
