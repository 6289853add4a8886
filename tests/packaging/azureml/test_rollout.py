"""Deploying to endpoints: Azure's unmodified SDK against a fake whose deployments really serve what was uploaded."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from packhouse.errors import RegistrationFailed
from packhouse.packaging.azureml import endpoints, online_client, rollout
from packhouse.packaging.azureml.deployment import AzureMLDeployment
from packhouse.packaging.azureml.server_log import LOG_LINES
from packhouse.packaging.azureml.workspace import AzureMLConnection, AzureMLSession
from tests.azure_workspaces import connect, files, uploaded
from tests.classifiers import points
from tests.fakes.azure import FakeAzure, accept, container_crash, image_build_failure, out_of_quota, why_unavailable
from tests.fakes.azure.endpoints import Deployment
from tests.packaging_jobs import CPU, EXACT, NEAR, Grades, Packing, make_packing, predict

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(why_unavailable()), reason=str(why_unavailable()))]

RIGHT: Grades = {CPU: {EXACT: (1.0, 3.0)}}
WRONG: Grades = {CPU: {EXACT: (0.5, 3.0)}}
OTHER: Grades = {CPU: {NEAR: (89 / 90, 2.0)}}


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeAzure]:
    """A subscription with one workspace."""
    with FakeAzure(tmp_path_factory.mktemp("azure")) as started:
        yield started


@pytest.fixture(scope="module")
def packings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Packing]:
    """Jobs with a candidate, another one, and one that was graded as what it is not."""
    jobs = {"right": RIGHT, "other": OTHER, "wrong": WRONG}
    return {name: make_packing(tmp_path_factory.mktemp(name), grades) for name, grades in jobs.items()}


@pytest.fixture(scope="module")
def session(azure: FakeAzure) -> Iterator[AzureMLSession]:
    """The client process of all tests: to start one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in azure.environment.items():
            patch.setenv(name, value)
        with connect(azure, polling_interval_s=1).session() as session:
            yield session


@pytest.fixture
def connection(azure: FakeAzure, session: AzureMLSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMLConnection]:
    """The workspace, whose contract no request may break; each test begins without faults."""
    monkeypatch.setattr(endpoints, "BUSY_S", 0.2)
    monkeypatch.setattr(endpoints, "WAIT_S", 1.0)
    azure.violations.clear()
    azure.faults.planned.clear()
    azure.on_deploy = azure.serve
    azure.on_batch_deploy = azure.score.check
    yield Connected(**vars(session.connection), shared=(session._process, session._log, threading.Lock()))
    assert not azure.violations


@dataclass(frozen=True)
class Connected(AzureMLConnection):
    """A workspace that is connected to already, one request at a time, and for whose retries nobody waits."""

    shared: Any = None

    @contextmanager
    def session(self, sleep: Callable[[float], None] = lambda seconds: time.sleep(min(seconds, 0.2))) -> Iterator[Any]:
        process, log, lock = self.shared
        session = AzureMLSession(self, process, log, sleep)
        ask_once = session.ask_once

        def one_at_a_time(do: str, **arguments: Any) -> Any:
            with lock:
                return ask_once(do, **arguments)

        session.ask_once = one_at_a_time  # type: ignore[method-assign]
        yield session


def online(name: str, **settings: Any) -> AzureMLDeployment:
    """Return the configuration of a deployment to an endpoint of its own."""
    config = {"instance_type": "Standard_DS3_v2", "endpoint_name": name, "deployment_name": "blue"}
    return AzureMLDeployment(**{"deployment_config": config, "model_name": name, "step_interval_s": 0, **settings})


def batch(name: str, **settings: Any) -> AzureMLDeployment:
    """Return the configuration of a batch deployment to an endpoint of its own."""
    config = {"compute": "cpu-cluster", "endpoint_name": name, "deployment_name": "nightly"}
    server = {"inferencing_server": {"type": "AzureMLBatch"}}
    return AzureMLDeployment(**{"deployment_config": config, "model_name": name, "model_package": server, **settings})


def deploy(packing: Packing, packaging: AzureMLDeployment, connection: AzureMLConnection) -> tuple[str, ...]:
    """Make a package and deploy it."""
    workplace = replace(packing.workplace, connect={"azureml-workspace/default": connection}.__getitem__, flow_run="run-1")
    return tuple(packaging.register(packing.create(packaging), packing.job, workplace))


def nothing(_: Any) -> None:
    """Do nothing when an endpoint is changed."""


def asked(azure: FakeAzure, method: str, part: str, since: int = 0) -> list[str]:
    """Return the paths of requests with a method and a part of the path."""
    return [request.path for request in azure.requests[since:] if request.method == method and part in request.path]


def test_the_best_candidate_is_registered_deployed_asked_and_gets_all_traffic(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], tmp_path: Path
) -> None:
    packaging = online("apples", description="sorts points")
    places = deploy(packings["right"], packaging, connection)
    endpoint = azure.endpoints["apples"]
    assert places == (
        f"{connection.resource_id}/onlineEndpoints/apples/deployments/blue",
        f"{connection.resource_id}/models/apples/versions/1",
        "https://apples.westeurope.inference.ml.azure.com/score",
    )
    assert endpoint.traffic == {"blue": 100}
    folder = packings["right"].create(packaging)
    model = azure.models["apples"]["1"]
    assert uploaded(azure, model["modelUri"]) == files(folder / "model")
    assert model["description"] == "sorts points"
    properties = endpoint.deployments["blue"].properties
    code = azure.codes[properties["codeConfiguration"]["codeId"].split("/")[-3]]["1"]
    fetched = azure.download(code["codeUri"], tmp_path / "code")
    assert files(fetched) == files(folder / "code")
    assert properties["instanceType"] == "Standard_DS3_v2"
    assert endpoint.deployments["blue"].tracked["tags"]["packhouse.flow_run"] == "run-1"
    environment = azure.environments[properties["environmentId"].split("/")[-3]][properties["environmentId"].split("/")[-1]]
    assert yaml.safe_load(environment["condaFile"]) == yaml.safe_load((folder / "environment" / "conda.yaml").read_text())

    since = len(azure.requests)
    assert deploy(packings["right"], packaging, connection) == places
    assert asked(azure, "PUT", "", since) == []


def test_requests_are_no_larger_than_an_endpoint_takes(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_client, "MAX_REQUEST_BYTES", 1000)
    since = len(azure.requests)
    deploy(packings["right"], online("small"), connection)
    sizes = [len(request.content) for request in azure.requests[since:] if request.path == "/score"]
    assert max(sizes) <= 1000
    assert len(sizes) > 5


def test_a_request_too_large_for_json_is_sent_and_answered_in_bytes(
    azure: FakeAzure,
    connection: AzureMLConnection,
    packings: dict[str, Packing],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(online_client, "MAX_REQUEST_BYTES", 1000)
    deploy(packings["right"], online("bytes", smoke_test=None), connection)
    samples, _ = points()
    model = packings["right"].create(online("bytes")) / "model" / "model.onnx"
    expected = predict(model, samples)
    since = len(azure.requests)
    with connection.session() as session:
        client = online_client.OnlineClient(session, "bytes", "blue", tmp_path)
        answered = client.infer({"x": samples}, list(expected))
    (request,) = (request for request in azure.requests[since:] if request.path == "/score")
    assert request.headers["content-type"] == "application/octet-stream"
    for name, values in expected.items():
        np.testing.assert_array_equal(answered[name], values)


def test_another_candidate_takes_the_traffic_step_by_step_and_the_old_one_is_deleted(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    deploy(packings["right"], online("pears"), connection)
    seen: list[dict[str, int]] = []
    azure.on_endpoint(lambda endpoint: seen.append(dict(endpoint.traffic)))
    changed = online("pears", model_version="auto", traffic=[20, 100], old_deployments="delete")
    places = deploy(packings["other"], changed, connection)
    azure.on_endpoint(nothing)
    green = places[0].rpartition("/")[2]
    assert green.startswith("blue-")
    assert seen == [{green: 20, "blue": 80}, {green: 100}]
    assert list(azure.endpoints["pears"].deployments) == [green]
    assert set(azure.models["pears"]) == {"1", "2"}


def test_an_old_deployment_is_kept_unless_it_is_to_be_deleted_and_none_is_given_traffic_that_shall_have_none(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    deploy(packings["right"], online("plums"), connection)
    deploy(packings["other"], online("plums", model_version="auto", traffic="none"), connection)
    assert azure.endpoints["plums"].traffic == {"blue": 100}
    deploy(packings["other"], online("plums", model_version="auto"), connection)
    assert azure.endpoints["plums"].traffic.get("blue", 0) == 0
    assert len(azure.endpoints["plums"].deployments) == 2


def test_a_deployment_that_scores_otherwise_gets_no_traffic_and_is_deleted(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    deploy(packings["other"], online("figs"), connection)
    with pytest.raises(RegistrationFailed, match=r"the smoke test failed: accuracy-accuracy_score.*is 1 .* was 0.5") as failed:
        deploy(packings["wrong"], online("figs", model_version="auto"), connection)
    assert "POST /score" in failed.value.logs["inference server"]
    assert azure.endpoints["figs"].traffic == {"blue": 100}
    assert list(azure.endpoints["figs"].deployments) == ["blue"]


def test_a_deployment_that_azure_did_not_confirm_is_deleted_too_where_it_scores_otherwise(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    deploy(packings["right"], online("unheard", smoke_test=None), connection)
    azure.fail("PUT", "unheard/deployments", loses_answer=True)
    since = len(azure.requests)
    with pytest.raises(RegistrationFailed, match="accuracy_score"):
        deploy(packings["wrong"], online("unheard", model_version="auto"), connection)
    sent = [request for request in azure.requests[since:] if request.method == "PUT" and "/deployments/" in request.path]
    assert [request.status for request in sent] == [0, 409]
    assert list(azure.endpoints["unheard"].deployments) == ["blue"]


def test_only_golden_samples_are_asked_for_where_scores_are_not(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    deploy(packings["wrong"], online("limes", smoke_test={"scores": False}), connection)
    assert azure.endpoints["limes"].traffic == {"blue": 100}


@pytest.mark.parametrize(
    ("name", "failure", "message"),
    [
        ("image", image_build_failure, r"ImageBuildFailure.*→ the image cannot be built; check image and packages"),
        ("quota", out_of_quota, r"OutOfQuota.*→ ask for more quota"),
        (
            "crash",
            container_crash("Traceback\nRuntimeError: no seeds\n"),
            r"→ the scoring script.*: RuntimeError: no seeds",
        ),
    ],
)
def test_what_this_made_is_deleted_where_azure_cannot_deploy_and_the_next_run_completes(
    azure: FakeAzure,
    connection: AzureMLConnection,
    packings: dict[str, Packing],
    name: str,
    failure: Callable[[Deployment], None],
    message: str,
) -> None:
    azure.on_deploy = failure
    since = len(azure.requests)
    with pytest.raises(RegistrationFailed, match=message) as failed:
        deploy(packings["right"], online(name), connection)
    assert not failed.value.is_transient
    assert len(asked(azure, "PUT", "/deployments/", since)) == 1
    assert name not in azure.endpoints
    azure.on_deploy = azure.serve
    deploy(packings["right"], online(name), connection)
    assert azure.endpoints[name].traffic == {"blue": 100}


# What Azure answers to a request; words of what is said; how often the deployment was asked for; whether later helps.
REFUSED: dict[str, tuple[dict[str, Any], str, int, bool]] = {
    "no-role-for-endpoint": (
        {"path": "onlineEndpoints/[^/]+$", "status": 403, "code": "AuthorizationFailed"},
        r"AuthorizationFailed.*→ give the identity the role",
        0,
        False,
    ),
    "no-quota": (
        {"path": "/deployments/", "status": 400, "code": "OutOfQuota", "message": "Not enough quota"},
        r"OutOfQuota: Not enough quota.*→ ask for more quota",
        1,
        False,
    ),
    "bad-argument": (
        {"path": "/deployments/", "status": 400, "code": "BadArgument", "message": "no such instance type"},
        r"BadArgument: no such instance type → check deployment_config and model_package",
        1,
        False,
    ),
    "no-secrets": (
        {"path": "/deployments/", "status": 400, "code": "SecretsInjectionError", "message": "vault"},
        r"SecretsInjectionError: vault → the endpoint's identity may not read the secrets",
        1,
        False,
    ),
    "limited": (
        {"path": "/deployments/", "status": 429, "code": "TooManyRequests", "retry_after": 0.1},
        r"TooManyRequests.*→ Azure limits requests; register again later",
        3,
        True,
    ),
    "expired": (
        {"path": "/deployments/", "status": 401, "code": "ExpiredAuthenticationToken"},
        r"ExpiredAuthenticationToken.*→ the token expired",
        2,
        False,
    ),
    "busy-for-ever": (
        {"path": "/deployments/", "status": 409, "code": "Conflict", "message": "it is being changed"},
        r"others keep changing the endpoint busy-for-ever → register again later",
        3,
        True,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_azure_refuses_is_said_with_its_remedy_and_a_second_run_completes(
    azure: FakeAzure,
    connection: AzureMLConnection,
    packings: dict[str, Packing],
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    failing, words, times, is_transient = REFUSED[case]
    azure.on_deploy = accept
    monkeypatch.setattr(rollout, "BUSY_TRIES", 3)
    azure.fail(**{"method": "PUT", "message": "no", "times": 50, **failing})
    since = len(azure.requests)
    with pytest.raises(RegistrationFailed, match=words) as failed:
        deploy(packings["right"], online(case, smoke_test=None), replace(connection, retries=0))
    assert failed.value.is_transient == is_transient
    assert len(asked(azure, "PUT", "/deployments/", since)) == times
    assert case not in azure.endpoints
    azure.faults.planned.clear()
    deploy(packings["right"], online(case, smoke_test=None), connection)
    assert azure.endpoints[case].traffic == {"blue": 100}


def test_an_endpoint_that_was_there_is_kept_where_a_deployment_fails(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    deploy(packings["right"], online("kept"), connection)
    azure.on_deploy = out_of_quota
    with pytest.raises(RegistrationFailed, match="OutOfQuota"):
        deploy(packings["other"], online("kept", model_version="auto"), connection)
    assert list(azure.endpoints["kept"].deployments) == ["blue"]
    assert azure.endpoints["kept"].traffic == {"blue": 100}


def test_what_azure_canceled_is_done_again(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    from tests.fakes.azure import ServiceError

    failures = iter([ServiceError(409, "OperationCanceled", "The operation was canceled.")])

    def deploy_at_last(deployment: Deployment) -> None:
        if failure := next(failures, None):
            raise failure
        azure.serve(deployment)

    azure.on_deploy = deploy_at_last
    since = len(azure.requests)
    deploy(packings["right"], online("again"), connection)
    assert len(asked(azure, "PUT", "/deployments/", since)) == 2


def test_another_change_is_waited_for(azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]) -> None:
    azure.fail("PUT", "onlineEndpoints/busy/deployments", status=409, code="Conflict", message="it is being changed", times=2)
    deploy(packings["right"], online("busy"), connection)
    assert azure.endpoints["busy"].traffic == {"blue": 100}


def test_a_change_that_azure_does_not_tell_of_any_more_is_judged_by_its_state(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    azure.fail("GET", "mfeOperationsStatus", status=404, code="NotFound", message="no such operation", times=1)
    deploy(packings["right"], online("lost"), connection)
    assert azure.endpoints["lost"].traffic == {"blue": 100}


def test_a_change_that_takes_too_long_is_left_alone_and_the_next_run_goes_on_with_it(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    release = threading.Event()

    def deploy_late(deployment: Deployment) -> None:
        release.wait(120)
        azure.serve(deployment)

    azure.on_deploy = deploy_late
    hurried = replace(connection, timeout_s=5.0)
    with pytest.raises(RegistrationFailed, match=r"is not done after 5 s, and goes on in Azure ML → register again"):
        deploy(packings["right"], online("late"), hurried)
    assert "blue" in azure.endpoints["late"].deployments
    since = len(azure.requests)
    release.set()
    deploy(packings["right"], online("late"), connection)
    assert asked(azure, "PUT", "/deployments/", since) == []
    assert azure.endpoints["late"].traffic == {"blue": 100}


@pytest.mark.parametrize("policy", ["report", "repair"])
def test_an_endpoint_that_failed_is_reported_or_repaired(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], policy: str
) -> None:
    name = f"failed-{policy}"
    deploy(packings["right"], online(name, smoke_test=None), connection)
    azure.endpoints[name].state = "Failed"
    packaging = online(name, model_version="auto", failed_endpoint=policy)
    if policy == "report":
        with pytest.raises(RegistrationFailed, match=r"is in the state Failed → set failed_endpoint to repair"):
            deploy(packings["other"], packaging, connection)
        assert azure.endpoints[name].traffic == {"blue": 100}
    else:
        deploy(packings["other"], packaging, connection)
        assert azure.endpoints[name].state == "Succeeded"


def test_the_name_of_an_endpoint_that_is_taken_elsewhere_is_said_to_be(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    azure.fail("PUT", "onlineEndpoints/taken", status=409, code="Conflict", message="in use", times=1)
    with pytest.raises(RegistrationFailed, match=r"cannot be made .*in use.* → its name is taken .*choose another"):
        deploy(packings["right"], online("taken"), connection)
    assert "taken" not in azure.endpoints


def test_outputs_that_json_cannot_hold_are_asked_for_as_bytes(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], tmp_path: Path
) -> None:
    code = shutil.copytree(packings["right"].create(online("unfit")) / "code", tmp_path / "code")
    script = (code / "score.py").read_text()
    refusal = """    if request.headers.get(JSON_LENGTH) is None:
        return AMLResponse('{"error": "not finite"}', 422, {"Content-Type": "application/json"})
    try:
        content, headers ="""
    (code / "score.py").write_text(script.replace("    try:\n        content, headers =", refusal))
    server = {"code_folder": code, "scoring_script": "score.py"}
    since = len(azure.requests)
    deploy(packings["right"], online("unfit", model_package={"inferencing_server": server}), connection)
    sent = [request for request in azure.requests[since:] if request.path.endswith("/score")]
    as_json, as_bytes = "application/json", "application/octet-stream"
    assert [(request.headers["content-type"], request.status) for request in sent[:3]] == [
        (as_json, 424),
        (as_json, 424),
        (as_bytes, 200),
    ]


@pytest.mark.parametrize(
    ("status", "words", "is_transient"),
    [(429, "Azure limits requests", True), (408, "raise request_settings.request_timeout_ms", False)],
)
def test_an_endpoint_that_is_busy_may_be_asked_later_and_one_that_is_slow_is_said_to_be(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], status: int, words: str, is_transient: bool
) -> None:
    name = f"hurried-{status}"
    azure.fail("POST", f"{name}.*/score", status=status, code="NoAnswer", times=50)
    with pytest.raises(RegistrationFailed, match=f"the smoke test failed: .*→ .*{words}") as failed:
        deploy(packings["right"], online(name), connection)
    assert failed.value.is_transient == is_transient
    assert name not in azure.endpoints


def test_traffic_that_somebody_else_changes_is_not_overwritten(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    deploy(packings["right"], online("shared"), connection)
    endpoint = azure.endpoints["shared"]

    def somebody_else(changed: Any) -> None:
        if changed is endpoint and changed.traffic.get("blue") == 80:
            changed.properties["traffic"] = {"blue": 100}

    azure.on_endpoint(somebody_else)
    with pytest.raises(RegistrationFailed, match=r"somebody else changed the traffic of shared from .*80.* to .*'blue': 100"):
        deploy(packings["other"], online("shared", model_version="auto", traffic=[20, 100]), connection)
    azure.on_endpoint(nothing)
    assert endpoint.traffic == {"blue": 100}
    assert list(endpoint.deployments) == ["blue"]


@pytest.mark.parametrize("fails_at", [80, 50])
def test_traffic_is_put_back_whichever_step_fails(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], fails_at: int
) -> None:
    azure.on_deploy = accept
    name = f"steps-{fails_at}"
    deploy(packings["right"], online(name, smoke_test=None), connection)

    def fail_next(endpoint: Any) -> None:
        if endpoint.traffic.get("blue") == fails_at:
            azure.fail("PUT", f"onlineEndpoints/{name}$", status=400, code="BadRequest", message="not this one")

    azure.on_endpoint(fail_next)
    changed = online(name, model_version="auto", smoke_test=None, traffic=[20, 50, 100])
    with pytest.raises(RegistrationFailed, match="not this one") as failed:
        deploy(packings["other"], changed, connection)
    azure.on_endpoint(nothing)
    assert "could not be undone" not in str(failed.value)
    assert azure.endpoints[name].traffic == {"blue": 100}
    assert list(azure.endpoints[name].deployments) == ["blue"]


def test_an_old_deployment_that_cannot_be_deleted_is_said_to_be_left_and_traffic_stays_with_the_new_one(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    azure.on_deploy = accept
    deploy(packings["right"], online("leftover", smoke_test=None), connection)
    azure.fail("DELETE", "leftover/deployments", status=503, code="ServiceUnavailable", message="busy", times=50)
    changed = online("leftover", model_version="auto", smoke_test=None, old_deployments="delete")
    with pytest.raises(RegistrationFailed, match=r"^blue of leftover.*could not be deleted.*→ delete it by hand") as failed:
        deploy(packings["other"], changed, connection)
    assert not failed.value.is_transient  # a later attempt would take it that all is done
    (green,) = azure.endpoints["leftover"].deployments.keys() - {"blue"}
    assert azure.endpoints["leftover"].traffic == {green: 100}


def test_a_deployment_that_failed_with_its_traffic_is_made_anew_and_asked_again_and_its_log_is_told(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    azure.on_deploy = accept
    deploy(packings["right"], online("wilted", smoke_test=None), connection)
    blue = azure.endpoints["wilted"].deployments["blue"]
    blue.state = "Failed"
    azure.on_deploy = container_crash("Traceback\nRuntimeError: no seeds\n")
    with pytest.raises(RegistrationFailed, match=r"RuntimeError: no seeds") as failed:
        deploy(packings["right"], online("wilted"), connection)
    assert "no seeds" in failed.value.logs["inference server"]
    azure.on_deploy = accept  # as if it ran, but nothing answers
    with pytest.raises(RegistrationFailed, match=r"the smoke test failed: "):
        deploy(packings["right"], online("wilted"), connection)
    assert azure.endpoints["wilted"].traffic == {"blue": 100}


def test_a_payload_that_is_gone_is_said_before_anything_is_made(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own.py").write_text("def init(): ...\ndef run(data): return data\n")
    server = {"code_folder": tmp_path / "code", "scoring_script": "own.py"}
    gone = {"payload": tmp_path / "gone.json"}
    since = len(azure.requests)
    with pytest.raises(RegistrationFailed, match=r"smoke_test.payload cannot be read: .*gone.json"):
        deploy(packings["right"], online("payless", model_package={"inferencing_server": server}, smoke_test=gone), connection)
    assert len(azure.requests) == since


def test_what_was_made_is_deleted_where_packhouse_itself_fails(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    azure.on_deploy = accept
    packing = packings["right"]
    folder = packing.create(online("broken"))
    workplace = replace(packing.workplace, connect={"azureml-workspace/default": connection}.__getitem__)
    lost = replace(workplace, scratch=workplace.scratch / "not-there")
    with pytest.raises(RegistrationFailed, match="FileNotFoundError"):
        online("broken").register(folder, packing.job, lost)
    assert "broken" not in azure.endpoints


def test_a_batch_endpoint_without_a_default_has_none_again_where_the_new_one_cannot_be(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    deploy(packings["right"], batch("undecided", smoke_test=None, traffic="none"), connection)
    with connection.session() as session:
        endpoint = endpoints.RemoteEndpoint(session, "batch", "undecided")
        endpoint.change("route", "making it the default", traffic={"nightly": 100})
        endpoint.change("route", "putting it back", traffic={})
        found = endpoint.find()
    assert found
    assert found.traffic == {}


def test_a_script_of_the_users_is_asked_with_its_payload(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own.py").write_text(
        "import json\ndef init(): ...\ndef run(data):\n    return json.loads(data)['apples'] + 1\n"
    )
    payload = tmp_path / "payload.json"
    server = {"code_folder": tmp_path / "code", "scoring_script": "own.py"}
    settings = {"model_package": {"inferencing_server": server}, "smoke_test": {"payload": payload}}
    payload.write_text(json.dumps({"pears": 1}))
    since = len(azure.requests)
    with pytest.raises(RegistrationFailed, match=r"→ the scoring script failed.*KeyError: 'apples'") as failed:
        deploy(packings["right"], online("own", **settings), connection)
    assert not failed.value.is_transient
    assert len(asked(azure, "POST", "/score", since)) == 1
    assert "own" not in azure.endpoints
    payload.write_text(json.dumps({"apples": 1}))
    deploy(packings["right"], online("own", **settings), connection)
    assert azure.endpoints["own"].traffic == {"blue": 100}


def test_a_script_that_answers_otherwise_is_said_to_need_a_payload(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own.py").write_text("def init(): ...\ndef run(data):\n    return [1]\n")
    server = {"code_folder": tmp_path / "code", "scoring_script": "own.py"}
    with pytest.raises(RegistrationFailed, match=r"give smoke_test.payload"):
        deploy(packings["right"], online("strange", model_package={"inferencing_server": server}), connection)


def test_an_environment_of_the_workspace_is_used_and_has_to_be_there(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    with pytest.raises(RegistrationFailed, match=r"has no environment absent with version 7 → check model_package"):
        deploy(packings["right"], online("based", model_package={"base_environment_id": "azureml:absent:7"}), connection)
    assert "based" not in azure.endpoints
    deploy(packings["right"], online("base", model_package={"target_environment": "basis"}, smoke_test=None), connection)
    base = {"base_environment_id": "azureml:basis:1"}
    deploy(packings["right"], online("based", model_package=base), connection)
    assert azure.endpoints["based"].traffic == {"blue": 100}


def test_a_model_package_is_made_and_deployed_where_that_is_wanted(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    deploy(packings["right"], online("found", model_package={"target_environment": "found"}, smoke_test=None), connection)
    package = {"base_environment_id": "azureml:found:1", "target_environment": "packed"}
    deploy(packings["right"], online("packed", strategy="model_package", model_package=package), connection)
    properties = azure.endpoints["packed"].deployments["blue"].properties
    assert "packed" in properties["environmentId"]
    assert not properties.get("model")
    assert azure.endpoints["packed"].traffic == {"blue": 100}


def test_what_a_model_package_is_made_of_has_another_name_than_itself(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    azure.on_deploy = accept
    package = {"target_environment": "wrapped", "target_environment_version": "1"}
    packaging = online("wrapped", strategy="model_package", model_package=package, smoke_test=None)
    deploy(packings["right"], packaging, connection)
    assert list(azure.environments["wrapped"]) == list(azure.environments["wrapped-base"]) == ["1"]
    assert any("GET environments/wrapped-base/versions" in call for call in packaging.remote_calls())


def test_a_build_context_becomes_an_environment(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM ubuntu:24.04\n")
    environment, package = {"build_context": tmp_path}, {"target_environment": "of-a-context"}
    deploy(packings["right"], online("context", environment=environment, model_package=package, smoke_test=None), connection)
    (made,) = azure.environments["of-a-context"].values()
    assert made["build"]["contextUri"]


def test_a_batch_endpoint_gets_a_default_deployment_that_a_job_has_shown_to_be_right(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    jobs = len(azure.batch_jobs)
    places = deploy(packings["right"], batch("quinces"), connection)
    endpoint = azure.batch_endpoints["quinces"]
    assert places[0] == f"{connection.resource_id}/batchEndpoints/quinces/deployments/nightly"
    assert endpoint.properties["defaults"]["deploymentName"] == "nightly"
    assert endpoint.deployments["nightly"].properties["compute"].endswith("cpu-cluster")
    assert len(azure.batch_jobs) == jobs + 1
    since = len(azure.requests)
    assert deploy(packings["right"], batch("quinces"), connection) == places
    assert asked(azure, "PUT", "", since) == []

    with pytest.raises(RegistrationFailed, match="accuracy_score"):
        deploy(packings["wrong"], batch("quinces", model_version="auto"), connection)
    assert endpoint.properties["defaults"]["deploymentName"] == "nightly"
    assert list(endpoint.deployments) == ["nightly"]
    deploy(packings["other"], batch("quinces", model_version="auto", old_deployments="delete"), connection)
    (name,) = endpoint.deployments
    assert name.startswith("nightly-")
    assert endpoint.properties["defaults"]["deploymentName"] == name


def test_a_batch_script_that_fails_is_reported_with_the_log_of_its_job(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing], tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own.py").write_text(
        "def init(): ...\ndef run(files):\n    print('seed\\n' * 1000)\n    raise RuntimeError('no juice')\n"
    )
    payload = tmp_path / "payload.csv"
    payload.write_text("1;2")
    server = {"type": "AzureMLBatch", "code_folder": tmp_path / "code", "scoring_script": "own.py"}
    settings = {"model_package": {"inferencing_server": server}, "smoke_test": {"payload": payload}}
    with pytest.raises(RegistrationFailed, match=r"the smoke test's job .* is Failed: .*no juice") as failed:
        deploy(packings["right"], batch("sour", **settings), connection)
    assert any("no juice" in log and "/" in name for name, log in failed.value.logs.items())
    assert all(len(log.splitlines()) <= LOG_LINES for log in failed.value.logs.values())
    assert "sour" not in azure.batch_endpoints
    (tmp_path / "code" / "own.py").write_text("def init(): ...\ndef run(files):\n    return files\n")
    deploy(packings["right"], batch("sour", **settings), connection)
    assert azure.batch_endpoints["sour"].properties["defaults"]["deploymentName"] == "nightly"


def test_a_deployment_that_somebody_else_replaces_is_made_under_another_name(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    replaced = iter([True])

    def somebody_else(deployment: Deployment) -> None:
        azure.serve(deployment)
        if next(replaced, False):
            deployment.tracked["tags"]["packhouse.digest"] = "of something else"

    azure.on_deploy = somebody_else
    deploy(packings["right"], online("replaced"), connection)
    mine, theirs = sorted(azure.endpoints["replaced"].deployments, key=len, reverse=True)
    assert (theirs, mine[:5]) == ("blue", "blue-")
    assert azure.endpoints["replaced"].traffic == {mine: 100}


def test_two_that_deploy_at_once_lose_nothing(
    azure: FakeAzure, connection: AzureMLConnection, packings: dict[str, Packing]
) -> None:
    outcomes: dict[str, Any] = {}

    def run(name: str) -> None:
        try:
            outcomes[name] = deploy(packings[name], online("both", model_version="auto"), connection)
        except RegistrationFailed as error:
            outcomes[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in ("right", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("right", "other"):  # whoever was refused is told why, and goes on when the other is done
        if isinstance(outcomes[name], RegistrationFailed):
            assert "somebody else" in str(outcomes[name])
            deploy(packings[name], online("both", model_version="auto"), connection)
    assert len(azure.endpoints["both"].deployments) == 2
    assert sum(azure.endpoints["both"].traffic.values()) == 100
    assert set(azure.models["both"]) == {"1", "2"}
