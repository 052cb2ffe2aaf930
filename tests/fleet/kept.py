"""`kept.py PORT CA CERTIFICATE KEY FIFO BATCH`: one connection that is kept open. Each line of FIFO is a turn: the
batch is sent again, and the status of the answer printed."""

import http.client
import ssl
import sys

port, ca, certificate, key, fifo, batch = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)
connection = http.client.HTTPSConnection("localhost", int(port), context=context, timeout=60)
connection.connect()
# A connection that was closed is not opened again: the turn then fails.
connection.auto_open = 0
body = open(batch, "rb").read()
with open(fifo) as turns:
    for _ in turns:
        connection.request("POST", "/v1/events", body, {"Content-Type": "application/cloudevents-batch+json"})
        answer = connection.getresponse()
        print(answer.status, answer.read().decode(), flush=True)
