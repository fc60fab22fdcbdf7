#!/usr/bin/env python3
"""Prints login events as the queue carries them, one message body a line.

    dev/events.py [--count N] [--seed S] [--regular]

Without options it prints dev/events.jsonl. Events recur: a person logs in again and again, at home and away, two
people share a device, and many share an address. Strewn among them are the odd cases below, each of them once
however many events there are; `--regular` leaves them out. The same options print the same bytes on any machine.
"""

import argparse
import json
import os
import random
import sys

COUNT = 120
SEED = 20

# Each is a body as it stands in the queue, so that broken ones and the order of keys can be written too.
_SENT_TWICE = (
    '{"user_id":"0b9c6c9a-7e0e-4d5c-9e57-3c1f6f0b7a11","app_version":"5.6.3","device_type":"ios",'
    '"ip":"203.0.113.77","locale":"DE","device_id":"111-22-3333"}'
)
ODD_CASES = [
    # A login all the same.
    # Two messages with one body are two logins: a body is not what a message is known by.
    _SENT_TWICE,
    _SENT_TWICE,
    # IPv6, in the short form and with an IPv4 address inside.
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c001","app_version":"2.3.0","device_type":"android",'
    '"ip":"2001:db8::8a2e:370:7334","locale":"RU","device_id":"593-47-5928"}',
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c002","app_version":"2.3.0","device_type":"android",'
    '"ip":"::ffff:203.0.113.9","locale":null,"device_id":"593-47-5928"}',
    # Nothing to mask: NULL stays NULL, whether it is said or left out.
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c003","app_version":null,"device_type":"ios","ip":null}',
    # Text that is not ASCII, plain and as escapes.
    '{"user_id":"Jürgen-Ωμέγα-用户","app_version":"1.0.0","device_type":"приставка 📺","ip":"198.51.100.14",'
    '"locale":"日本","device_id":"№ 7 – ключ 🔑"}',
    '{"user_id":"\\u0416\\ud83d\\ude00","app_version":"1.0.0","device_type":"ios","ip":"198.51.100.15",'
    '"locale":"KR","device_id":"\\u2116\\t7\\/\\"8\\""}',
    # The last of duplicate keys wins.
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c004","app_version":"0.9.9","device_type":"ios",'
    '"ip":"198.51.100.1","locale":"FR","device_id":"222-33-4444","ip":"198.51.100.2","app_version":"3.0.1"}',
    # Keys that nobody asked for, also nested, and room between the tokens.
    ' { "user_id" : "9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c005" ,\t"extra": {"ip": ["not", "this"]}, "app_version": "4.1.0",'
    ' "device_type": "ios", "ip": "198.51.100.3", "locale": "PL", "device_id": "333-44-5555", "score": 1.5e3 } ',
    # Scalars that are no strings go in as their text.
    '{"user_id":1234567,"app_version":230,"device_type":true,"ip":"198.51.100.4","locale":"SE","device_id":5934759}',
    # As long as user_id may be.
    '{"user_id":"' + "u" * 128 + '","app_version":"2.3.0","device_type":"android","ip":"198.51.100.5",'
    '"locale":"NO","device_id":"444-55-6666"}',
    # No login: these become rejects.
    # Another type of message.
    '{"foo":"oops_wrong_msg_type","bar":"123"}',
    # Broken JSON: cut off, with a half of a surrogate pair, and something after the end.
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c006","app_version":"2.3.0","device_type":"android","ip":"198.51.100.6',
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c007","app_version":"2.3.0","device_type":"ios",'
    '"ip":"198.51.100.7","locale":"IT","device_id":"\\ud800"}',
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c008","app_version":"2.3.0","device_type":"ios",'
    '"ip":"198.51.100.8","locale":"IT","device_id":"555-66-7777"},',
    # JSON that is no object.
    '["login","198.51.100.9","666-77-8888"]',
    '"198.51.100.10"',
    # An array and an object where a scalar is due.
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c009","app_version":"2.3.0","device_type":"ios",'
    '"ip":["198.51.100.11","198.51.100.12"],"locale":"ES","device_id":"777-88-9999"}',
    '{"user_id":{"id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c010"},"app_version":"2.3.0","device_type":"ios",'
    '"ip":"198.51.100.13","locale":"ES","device_id":"888-99-0000"}',
    # No user.
    '{"user_id":null,"app_version":"2.3.0","device_type":"ios","ip":"198.51.100.16","locale":"ES",'
    '"device_id":"121-21-2121"}',
    # Too long: a user_id, a locale, and an ip that only its mask is too long for.
    '{"user_id":"' + "v" * 129 + '","app_version":"2.3.0","device_type":"android","ip":"198.51.100.17",'
    '"locale":"NO","device_id":"131-31-3131"}',
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c011","app_version":"2.3.0","device_type":"android",'
    '"ip":"198.51.100.18","locale":"' + "NO-" * 11 + '","device_id":"141-41-4141"}',
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c012","app_version":"2.3.0","device_type":"android","ip":"'
    + ", ".join(f"198.51.100.{last}" for last in range(100, 115))
    + '","locale":"NO","device_id":"151-51-5151"}',
    # A character that PostgreSQL's text cannot hold.
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c013","app_version":"2.3.0","device_type":"android",'
    '"ip":"198.51.100.19","locale":"GB","device_id":"161-61\\u0000-6161"}',
    # Versions that are no number, or none that an integer can hold.
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c014","app_version":"2.3.0-beta","device_type":"android",'
    '"ip":"198.51.100.20","locale":"GB","device_id":"171-71-7171"}',
    '{"user_id":"9b0f1f0e-3d8c-4f43-8f6e-0f4dd2a1c015","app_version":"21.474.83648","device_type":"android",'
    '"ip":"198.51.100.21","locale":"GB","device_id":"181-81-8181"}',
]

VERSIONS = ["2.3.0", "2.3.0", "2.3.0", "2.2.1", "2.1.0", "1.9.12", "0.2.5"]
LOCALES = ["RU", "US", "DE", "BR", "IN", "FR", "JP", "UA", None]


class Events:
    """An endless, reproducible supply of regular events."""

    def __init__(self, count, seed):
        # Of all methods of Random, only random() is promised to give the same numbers in every version of Python.
        self._random = random.Random(seed).random
        # So that a person comes back three times on average, and memory has a bound.
        self._people = [self._person() for _ in range(min(count // 3 + 1, 200_000))]
        for number in range(1, len(self._people), 10):
            self._people[number]["device_id"] = self._people[number - 1]["device_id"]
        self._shared_networks = [self._ip() for _ in range(min(count // 20 + 1, 20_000))]

    def event(self):
        """The body of the next event."""
        person = self._pick(self._people)
        away = self._random() < 0.3
        return json.dumps(
            {
                "user_id": person["user_id"],
                "app_version": self._pick(VERSIONS),
                "device_type": person["device_type"],
                "ip": self._pick(self._shared_networks) if away else person["home"],
                "locale": person["locale"],
                "device_id": person["device_id"],
            },
            separators=(",", ":"),
        )

    def _person(self):
        return {
            "user_id": "-".join(self._hex(digits) for digits in (8, 4, 4, 4, 12)),
            "device_type": self._pick(["android", "android", "ios"]),
            "device_id": f"{self._below(900) + 100:03}-{self._below(100):02}-{self._below(10_000):04}",
            "locale": self._pick(LOCALES),
            "home": self._ip(),
        }

    def _ip(self):
        if self._random() < 0.1:
            return "2001:db8:" + ":".join(self._hex(4).lstrip("0") or "0" for _ in range(6))
        # 192 to 199 holds no loopback, multicast or link-local address; the second number keeps off 192.168.
        return f"{self._below(8) + 192}.{self._below(160) + 1}.{self._below(256)}.{self._below(254) + 1}"

    def _hex(self, digits):
        return f"{self._below(16**digits):0{digits}x}"

    def _pick(self, choices):
        return choices[self._below(len(choices))]

    def _below(self, limit):
        return int(self._random() * limit)


def bodies(count=COUNT, seed=SEED, odd_cases=ODD_CASES):
    """Yields `count` message bodies, with the odd cases spread evenly among them."""
    supply = Events(count, seed)
    gap = count // len(odd_cases) if odd_cases else count + 1
    odd = iter(odd_cases)
    for number in range(1, count + 1):
        body = next(odd, None) if number % gap == 0 else None
        yield supply.event() if body is None else body


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help=f"how many, {COUNT} unless told")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--regular", action="store_true", help="regular events alone, without the odd cases")
    options = parser.parse_args()
    odd_cases = [] if options.regular else ODD_CASES
    if options.count < len(odd_cases):
        parser.error(f"the odd cases alone are {len(odd_cases)}: ask for more, or for --regular")
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    try:
        for body in bodies(options.count, options.seed, odd_cases):
            print(body)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has read enough. Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
