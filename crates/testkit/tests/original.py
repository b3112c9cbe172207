"""A client of port 5000, written from the protocol's text alone.

Usage: original.py SOCKET. Prints one line per finding; the test compares them.
"""

import json
import socket
import struct
import sys


def connect(path):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(path)
    client.sendall(b"CONNECT 5000\n")
    line = b""
    while not line.endswith(b"\n"):
        line += client.recv(1)
    assert line.startswith(b"OK "), line
    return client


def receive(client):
    def exactly(count):
        data = b""
        while len(data) < count:
            more = client.recv(count - len(data))
            if not more:
                return None
            data += more
        return data

    head = exactly(4)
    return head and json.loads(exactly(struct.unpack(">I", head)[0]))


def send(client, text):
    client.sendall(struct.pack(">I", len(text)) + text)


def ask(client, **request):
    send(client, json.dumps(request).encode())
    return receive(client)


client = connect(sys.argv[1])
answer = ask(client, trace_id="one", lang="python", code="import sys; print('hé'); print('err', file=sys.stderr); sys.exit(3)", timeout=60)
print(sorted(answer), answer["trace_id"], repr(answer["stdout"]), repr(answer["stderr"]), answer["exit_code"])
answer = ask(client, trace_id="two", lang="bash", code="echo again", timeout=60)
print(answer["trace_id"], repr(answer["stdout"]), answer["exit_code"])
answer = ask(client, trace_id="", lang="bash", code="sleep 100", timeout=0.5)
print(answer["exit_code"])
answer = ask(client, trace_id="", lang="cobol", code="x", timeout=1)
print(answer["exit_code"], answer["stderr"])
answer = ask(client, trace_id="", lang="ruby", code="x", timeout=1)
print(answer["exit_code"])

# Frames that are none: an answer that says so, then the end of the connection.
for garbage in [struct.pack(">I", 0), struct.pack(">I", 0xFFFFFFFF), struct.pack(">I", 4) + b"junk", b"GET / HTTP/1.1\r\n\r\n"]:
    client = connect(sys.argv[1])
    client.sendall(garbage)
    answer = receive(client)
    print(answer["exit_code"], client.recv(1) == b"")

# A frame that is cut off: no answer.
client = connect(sys.argv[1])
client.sendall(struct.pack(">I", 100) + b"{")
client.shutdown(socket.SHUT_WR)
print(receive(client))

# Two connections at once.
first, second = connect(sys.argv[1]), connect(sys.argv[1])
send(first, json.dumps(dict(trace_id="a", lang="bash", code="sleep 3; echo a", timeout=60)).encode())
print(ask(second, trace_id="b", lang="bash", code="echo b", timeout=60)["stdout"], end="")
print(receive(first)["stdout"], end="")

# A port that nobody listens on is refused.
client = socket.socket(socket.AF_UNIX)
client.settimeout(60)
client.connect(sys.argv[1])
client.sendall(b"CONNECT 4999\n")
print(client.recv(1))
