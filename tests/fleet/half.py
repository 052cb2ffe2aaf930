"""`half.py PORT CA CERTIFICATE KEY`: a body of which half comes, and then no more: the client's direction is closed,
as a box in between does. Prints the status of the answer."""

import os
import socket
import ssl
import sys

port, ca, certificate, key = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(certificate, key)
plain = socket.create_connection(("localhost", int(port)), timeout=60)
stream = context.wrap_socket(plain, server_hostname="localhost")
stream.sendall(
    b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000\r\n"
    b"Content-Type: application/cloudevents-batch+json\r\n\r\n[" + b" " * 999
)
plain_again = socket.socket(fileno=os.dup(stream.fileno()))
plain_again.shutdown(socket.SHUT_WR)
answer = b""
while chunk := stream.recv(4096):
    answer += chunk
print(answer.split(b" ")[1].decode() if answer else "no answer")
