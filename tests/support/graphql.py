"""A running Dagster web server, asked over HTTP as its own pages ask it.

Belongs here: the few questions that tests ask. Does not belong here: starting servers (`shell.py`).
"""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

_LAUNCH = """
mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on InvalidSubsetError { message }
  ... on RunConfigValidationInvalid { errors { message } } ... on PythonError { message } } }
"""
_REPOSITORIES = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
_TERMINATE = """
mutation($id: String!) { terminateRun(runId: $id, terminatePolicy: SAFE_TERMINATE) { __typename } }
"""


class WebServer:
    """The GraphQL end of `dagster dev` at a port of this machine."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of an answer. Raises AssertionError with the errors of the server."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        assert "errors" not in found, found["errors"]
        data: dict[str, Any] = found["data"]
        return data

    def keys(self) -> set[str]:
        """Keys of all assets of the code location."""
        return {"/".join(node["assetKey"]["path"]) for node in self.ask("{ assetNodes { assetKey { path } } }")["assetNodes"]}

    def data_version(self, key: str) -> str | None:
        """What the page of an asset calls its version."""
        query = "query($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) { dataVersion } }"
        version: str | None = self.ask(query, keys=[{"path": key.split("/")}])["assetNodes"][0]["dataVersion"]
        return version

    def materialise(self, key: str) -> str:
        """Press "Materialize" on one asset; returns the run's id."""
        (repository,) = self.ask(_REPOSITORIES)["repositoriesOrError"]["nodes"]
        selector = {
            "repositoryLocationName": repository["location"]["name"], "repositoryName": repository["name"],
            "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": key.split("/")}], "assetCheckSelection": None,
        }  # fmt: skip
        answer = self.ask(_LAUNCH, params={"selector": selector, "runConfigData": {}, "mode": "default"})
        launched = answer["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run: str = launched["run"]["runId"]
        return run

    def terminate(self, run: str) -> None:
        """Press "Terminate"."""
        assert self.ask(_TERMINATE, id=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def status(self, run: str) -> str:
        """State of a run, as its page shows it."""
        query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        state: str = self.ask(query, id=run)["runOrError"]["status"]
        return state

    def wait_for(self, run: str, states: set[str], seconds: float = 90) -> str:
        """Wait until a run is in one of these states."""
        end = time.monotonic() + seconds
        while (state := self.status(run)) not in states:
            assert time.monotonic() < end, f"run {run} is {state} after {seconds} s, not one of {sorted(states)}"
            time.sleep(0.3)
        return state
