"""A server that speaks as much of Kaggle's API as its client asks for, and misbehaves when it is told to.

    python -m tests.jobs.fetch_kaggle.kaggle_server --port 7777

serves the Olist files of `olist.py`, so that the job and the DAG can be tried by hand.
"""

import argparse
import base64
import hashlib
import io
import json
import re
import threading
import zipfile
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

TOKEN = "a token of the tests"
SERVICE = "/v1/datasets.DatasetApiService/"
CHUNK = 64 * 1024


@dataclass
class Version:
    files: dict[str, bytes]
    zipped: set[str] = field(default_factory=set)
    """Files that are sent in an archive, as Kaggle sends large ones."""


@dataclass
class Dataset:
    versions: dict[int, Version]
    title: str = "Brazilian E-Commerce Public Dataset by Olist"
    licence: str = "CC-BY-NC-SA-4.0"

    @property
    def current(self) -> int:
        return max(self.versions)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that it is about."""

    about: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    change: bool = False
    lie: bool = False
    endless: bool = False
    hold: threading.Event | None = None
    times: int = 1


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that goes away in the middle is part of what is tested."""


class KaggleServer:
    def __init__(self, port: int = 0) -> None:
        self.datasets: dict[str, Dataset] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.logins = {f"Bearer {TOKEN}"}
        self.sent = 0
        self.page = 200
        self.lock = threading.Lock()
        server = self

        class Handler(_Handler):
            kaggle = server

        self.http = _Server(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)

    def __enter__(self) -> "KaggleServer":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for fault in self.faults:
            if fault.hold:
                fault.hold.set()
        self.http.shutdown()
        self.http.server_close()

    def put(self, ref: str, version: int, files: dict[str, bytes], zipped: set[str] | None = None) -> None:
        self.datasets.setdefault(ref, Dataset({})).versions[version] = Version(files, zipped or set())

    def fault(self, about: str, **what: Any) -> Fault:
        self.faults.append(Fault(about, **what))
        return self.faults[-1]

    def due(self, about: str) -> Fault | None:
        with self.lock:
            self.asked.append(about)
            for fault in self.faults:
                if fault.times and re.search(fault.about, about):
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    kaggle: KaggleServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        operation = self.path.removeprefix(SERVICE)
        fault = self.kaggle.due(f"{operation} {request.get('fileName', '')}".strip())
        if fault and fault.status:
            self.answer(fault.status, {"code": fault.status, "message": "as told"}, fault.headers)
            return
        if self.headers.get("Authorization") not in self.kaggle.logins:
            self.answer(401, {"code": 401, "message": "Unauthenticated"})
            return
        ref = f"{request.get('ownerSlug')}/{request.get('datasetSlug')}"
        dataset = self.kaggle.datasets.get(ref)
        if dataset is None:
            self.answer(404, {"code": 404, "message": "Not found"})
            return
        number = request.get("datasetVersionNumber") or dataset.current
        version = dataset.versions.get(number)
        if version is None:
            self.answer(404, {"code": 404, "message": "No such version"})
            return
        if operation == "GetDataset":
            self.answer(
                200,
                {
                    "ref": ref,
                    "title": dataset.title,
                    "subtitle": "100,000 orders",
                    "licenseName": dataset.licence,
                    "currentVersionNumber": dataset.current,
                    "totalBytes": sum(map(len, version.files.values())),
                },
            )
        elif operation == "ListDatasetFiles":
            names = sorted(version.files)
            first = int(request.get("pageToken") or 0)
            last = first + min(self.kaggle.page, request.get("pageSize") or 20)
            listed = [{"name": name, "totalBytes": len(version.files[name])} for name in names[first:last]]
            more = {"nextPageToken": str(last)} if last < len(names) else {}
            self.answer(200, {"datasetFiles": listed, **more})
        elif operation == "DownloadDataset":
            name = request["fileName"]
            if name not in version.files:
                self.answer(404, {"code": 404, "message": "No such file"})
                return
            suffix = ".zip" if name in version.zipped else ""
            self.send_response(302)
            self.send_header(
                "Location", f"{self.kaggle.url}/storage/{ref}/{number}/{quote(name)}{suffix}?signed=1"
            )
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.answer(404, {"code": 404, "message": operation})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self.kaggle.due(f"GET {path} {self.headers.get('Range', '')}".strip())
        if fault and fault.status:
            self.answer(fault.status, {"code": fault.status, "message": "as told"}, fault.headers)
            return
        _, _, owner, slug, number, name = path.split("/", 5)
        version = self.kaggle.datasets[f"{owner}/{slug}"].versions[int(number)]
        zipped = name.removesuffix(".zip") in version.zipped and name.endswith(".zip")
        body = version.files[name.removesuffix(".zip") if zipped else name]
        if fault and fault.change:
            body = body[:-2] + bytes([body[-2] ^ 1]) + body[-1:]
        if zipped:
            body = _archive(name.removesuffix(".zip"), body)
        said = version.files[name] if fault and fault.lie else body
        md5 = base64.b64encode(hashlib.md5(said, usedforsecurity=False).digest()).decode()
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.headers.get("If-Range", etag) == etag:
            start = int(asked[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", formatdate(1_600_000_000, usegmt=True))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("x-goog-hash", "crc32c=AAAAAA==")
        self.send_header("x-goog-hash", f"md5={md5}")
        if fault and fault.endless:
            self.send_header("Connection", "close")
            self.end_headers()
            self._send_for_ever()
            return
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        for place in range(0, len(rest), CHUNK):
            if fault and fault.cut_after is not None and place >= fault.cut_after:
                if fault.hold:
                    self.wfile.flush()
                    fault.hold.wait(60)
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(rest[place : place + CHUNK])
            self.kaggle.sent += len(rest[place : place + CHUNK])

    def _send_for_ever(self) -> None:
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b"x" * CHUNK)
        except OSError:
            pass


def _archive(name: str, body: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), body)
    return sink.getvalue()


def main() -> None:
    from tests.jobs.fetch_kaggle import olist  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=7777)
    with KaggleServer(parser.parse_args().port) as server:
        server.put(olist.REF, 1, olist.files(), {olist.ITEMS})
        print(f"{server.url} as KAGGLE_ENDPOINT, {TOKEN!r} as KAGGLE_API_TOKEN")
        server.thread.join()


if __name__ == "__main__":
    main()
