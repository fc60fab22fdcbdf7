#!/usr/bin/env python3
"""Makes queues, fills them and counts what is left in them.

    dev/sqs.py create QUEUE [--fresh]     with its dead-letter queue QUEUE-dlq; prints the URL
    dev/sqs.py send QUEUE FILE            one body a line, - for standard input; prints how many were sent
    dev/sqs.py seed QUEUE FILE            both, and once: what was sent before is not sent again
    dev/sqs.py left QUEUE                 prints how many messages are there, hidden and delayed ones included

Run it with the Python of the SQS server's virtual environment, which has botocore. It speaks to AWS_ENDPOINT_URL and
refuses to go without one, so that no mistake reaches a real queue. (A file named queue.py would hide Python's own
module of that name from botocore.)
"""

import argparse
import itertools
import json
import os
import sys
import time

import botocore.session

# The limits of one SendMessageBatch call.
BATCH_ENTRIES = 10
BATCH_BYTES = 1024 * 1024

VISIBILITY_SECONDS = 120
DEAD_LETTER_AFTER = 5
DAY_SECONDS = 24 * 60 * 60


def create(client, name, fresh=False):
    """Creates the queue where it is missing; `fresh` empties one that is there, by making it again."""
    dead_letters = f"{name}-dlq"
    if fresh:
        for old in (name, dead_letters):
            try:
                client.delete_queue(QueueUrl=url_of(client, old))
            except client.exceptions.QueueDoesNotExist:
                pass
    # As long as SQS keeps anything: a dead letter's age counts from when it was first sent.
    dead_letters_url = client.create_queue(
        QueueName=dead_letters, Attributes={"MessageRetentionPeriod": str(14 * DAY_SECONDS)}
    )["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead_letters_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = {"deadLetterTargetArn": arn, "maxReceiveCount": DEAD_LETTER_AFTER}
    return client.create_queue(
        QueueName=name,
        Attributes={"VisibilityTimeout": str(VISIBILITY_SECONDS), "RedrivePolicy": json.dumps(redrive)},
    )["QueueUrl"]


# A tag of the queue: how many of the messages it was seeded with have been sent.
SEEDED = "seeded"


def seed(client, name, bodies):
    """Creates the queue and sends what of `bodies` was not sent by this before; returns the number of that.

    What is sent is remembered after every call, so that one that was broken off goes on where it was.
    """
    url = create(client, name)
    done = int(client.list_queue_tags(QueueUrl=url).get("Tags", {}).get(SEEDED, 0))
    return send(
        client,
        name,
        itertools.islice(bodies, done, None),
        then=lambda sent: client.tag_queue(QueueUrl=url, Tags={SEEDED: str(done + sent)}),
    )


def send(client, name, bodies, then=lambda sent: None):
    """Sends all bodies and returns their number. `then` is called after every batch with the number so far."""
    url = url_of(client, name)
    sent = 0
    said = time.monotonic()
    for batch in batches(bodies):
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(batch)]
        # The call succeeds though entries of it failed.
        for attempt in range(5):
            failed = client.send_message_batch(QueueUrl=url, Entries=entries).get("Failed", [])
            failed_ids = {entry["Id"] for entry in failed}
            entries = [entry for entry in entries if entry["Id"] in failed_ids]
            if not entries:
                break
            time.sleep(0.2 * 2**attempt)
        else:
            sys.exit(f"sqs: {len(entries)} messages could not be sent: {failed[0]['Code']}")
        sent += len(batch)
        then(sent)
        if time.monotonic() - said > 3:
            said = time.monotonic()
            print(f"sqs: {sent} sent", file=sys.stderr)
    return sent


def batches(bodies):
    """Groups bodies as one call may carry them."""
    batch, size = [], 0
    for body in bodies:
        length = len(body.encode())
        if batch and (len(batch) == BATCH_ENTRIES or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += length
    if batch:
        yield batch


def left(client, name):
    """How many messages the queue holds, in whatever state."""
    names = [f"ApproximateNumberOfMessages{state}" for state in ("", "NotVisible", "Delayed")]
    attributes = client.get_queue_attributes(QueueUrl=url_of(client, name), AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def url_of(client, name):
    return client.get_queue_url(QueueName=name)["QueueUrl"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("create", "send", "seed", "left"):
        sub = commands.add_parser(command)
        sub.add_argument("queue", metavar="QUEUE")
        if command == "create":
            sub.add_argument("--fresh", action="store_true", help="without the messages of one that is there")
        elif command in ("send", "seed"):
            sub.add_argument("file", metavar="FILE")
    options = parser.parse_args()

    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        sys.exit("sqs: set AWS_ENDPOINT_URL (dev/servers.py env DIR prints it)")
    # botocore knows the region as AWS_DEFAULT_REGION only.
    region = os.environ.get("AWS_REGION")
    client = botocore.session.get_session().create_client("sqs", region_name=region, endpoint_url=endpoint)
    try:
        if options.command == "create":
            print(create(client, options.queue, options.fresh))
        elif options.command == "left":
            print(left(client, options.queue))
        else:
            fill = seed if options.command == "seed" else send
            # Only a line feed ends a body: "\r" may be part of one.
            file = 0 if options.file == "-" else options.file
            with open(file, encoding="utf-8", newline="\n") as lines:
                print(fill(client, options.queue, (line.removesuffix("\n") for line in lines)))
    except client.exceptions.QueueDoesNotExist:
        sys.exit(f"sqs: there is no queue {options.queue} at {endpoint}")


if __name__ == "__main__":
    main()
