"""Every module of the product has a test of its own name, or a reason why not."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
ROOMS = (
    "policy",
    "http1",
    "buildkit",
    "host",
    "observability",
    "allocator",
    "runtime",
    "socket_proxy",
    "authz_plugin",
    "lifecycle",
    "cli",
    "lab",
)
# Only dataclasses, enums, protocols and tables: what there is to test is what others do with them.
VALUES = frozenset(
    {
        "allocator/mig.py",
        "allocator/model.py",
        "allocator/ports.py",
        "allocator/readings.py",
        "authz_plugin/ports.py",
        "buildkit/api_pb2.py",
        "buildkit/ports.py",
        "buildkit/verdicts.py",
        "lab/gpu_models.py",
        "policy/buildkit/model.py",
        "policy/dockerapi/bodies.py",
        "policy/gpu_bounds.py",
        "policy/dockerapi/model.py",
        *(
            f"policy/dockerapi/table/{name}.py"  # held against a list of every call: corpus/test_engine_api_paths.py
            for name in [
                "builds",
                "containers",
                "debug",
                "images",
                "networks",
                "plugins",
                "row",
                "swarm",
                "system",
                "volumes",
            ]
        ),
        "lifecycle/ports.py",
        "policy/model.py",
        "runtime/ports.py",
        "socket_proxy/ports.py",
        "socket_proxy/transaction.py",
    }
)
# Tested by what they are part of, in the file named here.
ELSEWHERE = {
    "allocator/answers.py": "unit/allocator/test_api.py",  # what all routes share
    "allocator/parts.py": "unit/allocator/test_app.py",  # put together, as a process
    "allocator/nvml.py": "unit/allocator/test_nvml_contract.py",  # one contract for it, its parts and its fake
    "allocator/nvml_events.py": "unit/allocator/test_nvml_contract.py",
    "allocator/nvml_measure.py": "unit/allocator/test_nvml_contract.py",
    "allocator/nvml_read.py": "unit/allocator/test_nvml_contract.py",
    "allocator/nvml_mig.py": "unit/allocator/test_mig_driver.py",  # the child, through the side that asks it
    "buildkit/giving.py": "unit/buildkit/test_session.py",  # what ds01 answers in a session
    "buildkit/calls.py": "unit/buildkit/test_relay.py",  # the state that a relay keeps of a call
    "http1/bodies.py": "unit/http1/test_reader.py",
    "http1/call.py": "unit/http1/test_client.py",
    "http1/connection.py": "unit/http1/test_server.py",
    "http1/heads.py": "unit/http1/test_reader.py",
    "http1/upstream.py": "unit/http1/test_client.py",
    "lifecycle/asking.py": "unit/lifecycle/test_leases.py",  # through both clients that ask so
    "lab/accounts.py": "integration/test_lab.py",  # changes the accounts of the machine
    "lab/gpus.py": "unit/lab/test_nvml_simulated.py",
    "lab/main.py": "integration/test_lab.py",  # the command as its user meets it
    "lab/session.py": "integration/test_lab.py",  # starts every daemon
    "lab/unix_http.py": "integration/test_lab.py",  # asks the daemons of a running lab
    "policy/ask.py": "unit/policy/test_evaluate.py",  # what a rule is, by stub rules
    "policy/build.py": "unit/authz_plugin/test_app.py",  # parse and compile in one call, from files
    "policy/counts.py": "unit/policy/rules/test_networks.py",  # by the rules that count
    "policy/dockerapi/answers/build_cache.py": "unit/policy/dockerapi/test_responses_system.py",
    "policy/dockerapi/answers/built.py": "unit/policy/dockerapi/test_responses_built.py",
    "policy/dockerapi/answers/errors.py": "unit/policy/dockerapi/test_responses_errors.py",
    "policy/dockerapi/answers/events.py": "unit/policy/dockerapi/test_responses_events.py",
    "policy/dockerapi/answers/images.py": "unit/policy/dockerapi/test_responses_lists.py",
    "policy/dockerapi/answers/inspect.py": "unit/policy/dockerapi/test_responses_inspect.py",
    "policy/dockerapi/answers/lists.py": "unit/policy/dockerapi/test_responses_lists.py",
    "policy/dockerapi/answers/mounts.py": "unit/policy/dockerapi/test_responses_inspect.py",
    "policy/dockerapi/answers/networks.py": "unit/policy/dockerapi/test_responses_lists.py",
    "policy/dockerapi/answers/pieces.py": "unit/policy/dockerapi/test_responses_lists.py",
    "policy/dockerapi/answers/saved.py": "unit/policy/dockerapi/test_responses_saved.py",
    "policy/dockerapi/answers/shared.py": "unit/policy/dockerapi/test_responses_shared.py",
    "policy/dockerapi/answers/system.py": "unit/policy/dockerapi/test_responses_system.py",
    "policy/dockerapi/answers/visibility.py": "property/test_responses_filters.py",
    "policy/dockerapi/bind.py": "unit/policy/dockerapi/test_references.py",  # the same walk, writing
    "policy/dockerapi/query.py": "unit/policy/dockerapi/test_read.py",
    "policy/dockerapi/responses.py": "property/test_responses_filters.py",  # the filters behind one name
    "policy/dockerapi/schema.py": "unit/policy/dockerapi/test_read.py",
    "policy/dockerapi/write.py": "property/test_dockerapi_laws.py",  # read(write(r)) == r
    "policy/document_values.py": "unit/policy/test_document.py",
    "policy/facts.py": "unit/policy/dockerapi/test_references.py",
    "policy/grants.py": "unit/policy/test_compile.py",  # what compiling a policy gives
    "socket_proxy/answers.py": "unit/socket_proxy/test_path.py",  # who sees what, between real sockets
    "socket_proxy/app.py": "unit/socket_proxy/test_path.py",  # everything wired together
    "socket_proxy/build.py": "integration/test_images.py",  # what dockerd builds, on a real one
    "socket_proxy/engine.py": "unit/socket_proxy/test_path.py",
    "socket_proxy/image_transfer.py": "integration/test_images.py",
    "socket_proxy/foundations.py": "unit/socket_proxy/test_path.py",  # as app
    "socket_proxy/parts.py": "unit/socket_proxy/test_path.py",  # as app
    "socket_proxy/shares.py": "unit/socket_proxy/test_share_path.py",  # all parts of sharing, wired together
    "socket_proxy/shaping.py": "unit/socket_proxy/test_path.py",
    "socket_proxy/pipeline.py": "unit/socket_proxy/test_pipeline_order.py",
}
MODULES = sorted(
    str(path.relative_to(ROOT))
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if path.name != "__init__.py"
)


def mirror(module: str) -> Path:
    path = Path(module)
    return TESTS / "unit" / path.parent / f"test_{path.name}"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_its_test(module: str) -> None:
    """A mirror, or a place in one list of exceptions, and never both."""
    places = (mirror(module).exists(), module in VALUES, module in ELSEWHERE)
    assert sum(places) == 1, f"{module}: mirror, values only, tested elsewhere: {places}"


@pytest.mark.parametrize("module", sorted(VALUES | ELSEWHERE.keys()))
def test_an_exception_is_of_a_module_that_exists(module: str) -> None:
    """A module that moved or went takes its exception with it, and the test it names is there."""
    assert module in MODULES
    assert (TESTS / ELSEWHERE.get(module, "unit")).exists()
