"""The web pages of the local hub: which ones it has, and what they are made from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from urllib.parse import quote

from aiohttp import web

from airflow_provider_oxen.testing.addresses import is_missing
from airflow_provider_oxen.testing.endpoints import build_handler
from airflow_provider_oxen.testing.evaluation import EvaluationStore
from airflow_provider_oxen.testing.exchange import HubRequest, HubResponse
from airflow_provider_oxen.testing.files import FileStore
from airflow_provider_oxen.testing.pages import (
    build_evaluation_page,
    build_file_page,
    build_index_page,
    build_missing_page,
    build_repository_page,
)

__all__ = ["Site"]


class Site:
    """
    Pages for people. A request for one needs no key, is in no list, and does not begin an evaluation's time.

    :param get_url: returns the address that all pages have at their beginning.
    :param evaluations: the evaluations.
    :param files: the files.
    :param get_missing: returns what does not exist.
    """

    def __init__(
        self,
        get_url: Callable[[], str],
        evaluations: EvaluationStore,
        files: FileStore,
        get_missing: Callable[[], Collection[str]],
    ) -> None:
        self._get_url = get_url
        self._evaluations = evaluations
        self._files = files
        self._get_missing = get_missing

    def routes(self, prefix: str) -> list[web.RouteDef]:
        """
        List the pages.

        :param prefix: path at the beginning of all their addresses.
        """
        repository = r"/{namespace:(?!api/)[^/]+}/{repo_name}"
        return [
            web.get(f"{prefix}{address}", build_handler(page, lambda *_: (), lambda _: "page"))
            for address, page in (
                ("", self._index),
                ("/", self._index),
                (repository, self._repository),
                (f"{repository}/", self._repository),
                (f"{repository}/evaluations/{{evaluation_id}}", self._evaluation),
                (f"{repository}/file/{{version}}/{{path:.*}}", self._file),
            )
        ]

    def _index(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:  # noqa: ARG002
        return build_index_page(self._get_url())

    def _repository(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:  # noqa: ARG002
        address, repository = self._place(names)
        if is_missing(self._get_missing(), *repository):
            return build_missing_page()
        known = {one.id: seen for one in self._evaluations.begun() if one.is_in(*repository) and (seen := one.show())}
        return build_repository_page(address, repository, known)

    def _evaluation(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:  # noqa: ARG002
        address, repository = self._place(names)
        found = self._evaluations.find_in(repository, names["evaluation_id"], self._get_missing())
        return build_evaluation_page(address, repository, found.id, found.show()) if found else build_missing_page()

    def _file(self, request: HubRequest, names: Mapping[str, str]) -> HubResponse:  # noqa: ARG002
        address, repository = self._place(names)
        found = self._files.find_at(repository, names["version"], names["path"], self._get_missing())
        return build_file_page(address, repository, names["version"], found) if found else build_missing_page()

    def _place(self, names: Mapping[str, str]) -> tuple[str, tuple[str, str]]:
        """Find the address of a repository's page, and the repository."""
        namespace, repo_name = names["namespace"], names["repo_name"]
        return f"{self._get_url()}/{quote(namespace, safe='')}/{quote(repo_name, safe='')}", (namespace, repo_name)
