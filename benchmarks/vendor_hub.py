"""
What the vendor's own Python client asks a hub for when it downloads a file, emulated for the section ``judging``.

The local hub lacks some of it: the client asks for the repository and for its branch first, gets large files in pieces,
and checks their hash, which is XXH3. Its client for Python is ``oxenai``, and the responses are as it reads them.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web  # noqa: TID253  # no part of a DAG file

from benchmarks.emulated import EmulatedServer

__all__ = ["VendorHub"]

_BLOCK = 1024 * 1024


class VendorHub(EmulatedServer):
    """A server for one file on this machine, from ``__enter__`` to ``__exit__``, in any repository and at any path."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file
        self._hash = _find_hash(file)

    def _add_routes(self, router: web.UrlDispatcher) -> None:
        repository = "/api/repos/{namespace}/{repo_name}"
        router.add_get(repository, self._repository)
        router.add_get(f"{repository}/meta/{{target:.*}}", self._meta)
        router.add_get(f"{repository}/file/{{target:.*}}", self._whole)
        router.add_get(f"{repository}/chunk/{{target:.*}}", self._chunk)

    async def _repository(self, request: web.Request) -> web.Response:
        view = {**request.match_info, "name": request.match_info["repo_name"], "is_empty": False}
        return _found({"repository": {**view, "min_version": None, "storage_kind": "local"}})

    async def _meta(self, request: web.Request) -> web.Response:
        entry = {
            "filename": request.match_info["target"].rpartition("/")[2],
            "hash": self._hash,
            "is_dir": False,
            "latest_commit": None,
            "resource": None,
            "size": self._file.stat().st_size,
            "data_type": "tabular",
            "mime_type": "application/octet-stream",
            "extension": self._file.suffix.removeprefix("."),
            "metadata": None,
            "is_queryable": None,
        }
        return _found({"entry": entry})

    async def _whole(self, request: web.Request) -> web.FileResponse:  # noqa: ARG002
        return web.FileResponse(self._file)

    async def _chunk(self, request: web.Request) -> web.Response:
        with self._file.open("rb") as file:
            file.seek(int(request.query["chunk_start"]))
            return web.Response(body=file.read(int(request.query["chunk_size"])))


def _found(found: dict[str, object]) -> web.Response:
    return web.json_response({"status": "success", "status_message": "resource_found", **found})


def _find_hash(file: Path) -> str:
    from xxhash import xxh3_128

    found = xxh3_128()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
