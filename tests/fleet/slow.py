"""`slow.py PORT N`: N connections that begin a handshake or a request and never end it, until it is killed."""

import socket
import ssl
import sys
import time

port, count = map(int, sys.argv[1:])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
held = []
for number in range(count):
    connection = socket.create_connection(("127.0.0.1", port))
    if number % 2:
        connection = context.wrap_socket(connection)
        connection.sendall(b"POST /v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n{" if number % 4 == 1 else b"GET /")
    held.append(connection)
time.sleep(600)
