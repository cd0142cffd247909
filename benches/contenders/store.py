"""A read-only S3 server for a folder. It waits before each response and counts requests and bytes.

store.py FOLDER WAIT_MS

Prints its port. `GET /.counts` returns the counts since the last such request. Signatures are not checked.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

LOCK = threading.Lock()
COUNTS = {"LIST": 0, "HEAD": 0, "GET": 0, "bytes": 0}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    wait_s: float

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def count(self, kind, size=0):
        time.sleep(self.wait_s)
        with LOCK:
            COUNTS[kind] += 1
            COUNTS["bytes"] += size

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/.counts":
            with LOCK:
                body = json.dumps(COUNTS).encode()
                COUNTS.update(dict.fromkeys(COUNTS, 0))
            return self.answer(200, body)
        query = parse_qs(url.query, keep_blank_values=True)
        if "list-type" in query:
            return self.listing(query)
        return self.object(unquote(url.path))

    def do_HEAD(self):
        self.object(unquote(urlsplit(self.path).path), is_head=True)

    def listing(self, query):
        """ListObjectsV2 without delimiter: all keys in one page."""
        prefix = query.get("prefix", [""])[0]
        start = self.folder / prefix.rpartition("/")[0]
        files = sorted(file for file in start.rglob("*") if file.is_file())
        keys = [(str(file.relative_to(self.folder)), file.stat().st_size) for file in files]
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><ETag>&quot;{size}&quot;</ETag>"
            "<LastModified>2026-11-24T15:00:00.000Z</LastModified></Contents>"
            for key, size in keys
            if key.startswith(prefix)
        )
        body = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name>'
            f"<IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        ).encode()
        # S3 lists 1,000 keys a page.
        for _ in range(-(-len(keys) // 1000) or 1):
            self.count("LIST")
        self.answer(200, body, [("Content-Type", "application/xml")])

    def object(self, path, is_head=False):
        file = self.folder / path.removeprefix("/bucket/")
        if not file.is_file():
            return self.answer(404)
        size = file.stat().st_size
        headers = [("Accept-Ranges", "bytes"), ("ETag", f'"{size}"'), ("Last-Modified", "Tue, 24 Nov 2026 15:00:00 GMT")]
        if is_head:
            self.count("HEAD")
            return self.answer(200, headers=headers, length=size)
        first, last = 0, size - 1
        asked = self.headers.get("Range")
        if asked:
            low, _, high = asked.removeprefix("bytes=").partition("-")
            first = int(low) if low else size - int(high)
            last = min(int(high), last) if low and high else last
            headers.append(("Content-Range", f"bytes {first}-{last}/{size}"))
        with file.open("rb") as opened:
            opened.seek(first)
            body = opened.read(last - first + 1)
        self.count("GET", len(body))
        self.answer(206 if asked else 200, body, headers)


def main():
    Handler.folder, Handler.wait_s = Path(sys.argv[1]), int(sys.argv[2]) / 1000
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


main()
