"""A member behind the load balancer: answers one HTTP request with the text that it was given.

qemu starts one for each connection to the member's address, with the connection as its standard input and output.
"""

import sys

request = sys.stdin.buffer
while request.readline(65536).strip():
    pass  # the header; a GET has no body
text = sys.argv[1].encode()
header = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
sys.stdout.buffer.write(header.encode() + text)
sys.stdout.buffer.flush()
