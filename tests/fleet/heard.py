"""`heard.py FILE [LOG]`: what a subscriber heard is what the mirror promises; exit code 1 if it is not.

FILE holds lines of `mosquitto_sub -F %j`. Of each incident a `new` comes first, then `update`s, then one `end`;
the first message has all that a notification needs; nothing is told before what changed earlier. With LOG, lines of
`lookback events --json`, every incident in it was told, with its end, and nothing else was.
"""

import json
import sys

ORDER = ["new", "update", "end"]


def main():
    """Says what is wrong with the story, if anything is."""
    heard = events(sys.argv[1])
    problems = list(disorder(heard))
    if len(sys.argv) > 2:
        problems += gaps(heard, sys.argv[2])
    if not heard:
        problems.append("nothing was heard")
    print("\n".join(problems) or f"{len(heard)} messages are as they should be")
    return 1 if problems else 0


def events(path):
    """The events that were heard, in order."""
    with open(path, encoding="utf-8") as file:
        messages = [json.loads(line) for line in file]
    return [json.loads(m["payload"]) for m in messages if "/event/" in m["topic"] and not m["retain"]]


def disorder(heard):
    """What breaks the order, or lacks its words."""
    told, seq = {}, 0
    for event in heard:
        before, kind = told.setdefault(event["id"], []), event["type"]
        if (kind == "new") != (not before):
            yield f"{event['id']} is told as {kind} after {before}"
        if before and ORDER.index(kind) < ORDER.index(before[-1]) or "end" in before:
            yield f"{event['id']} is told as {kind} after {before}"
        before.append(kind)
        if event["seq"] < seq:
            yield f"change {event['seq']} is told after {seq}"
        seq = event["seq"]
        if not (event["sentence"] and event["level"] and 0 <= event["score"] <= 1 and event["explanation"]):
            yield f"{event['id']} lacks words: {event}"


def gaps(heard, path):
    """Incidents of the log that were not told to their end, and the other way round."""
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    logged = {r["id"] for r in rows if r["kind"] == "incident"}
    ended = {e["id"] for e in heard if e["type"] == "end"}
    yield from (f"{i} was not told to its end" for i in sorted(logged - ended))
    yield from (f"{i} was told and is not in the log" for i in sorted({e['id'] for e in heard} - logged))


sys.exit(main())
