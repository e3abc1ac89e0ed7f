"""The tour of a client that openapi-python-client made of /openapi.json: deploy, wait, snapshot, an error, delete.

Environment: MUSTER_URL, MUSTER_TOKEN and MUSTER_CA (a file). The client is the package `muster_client`.
"""

import io
import os
from typing import TypeVar
from uuid import uuid4

from muster_client import AuthenticatedClient
from muster_client.api.deployments import deployment_create, deployment_delete, deployment_patch, deployment_show
from muster_client.api.health import health_show
from muster_client.api.images import image_content_put, image_content_read, image_create, image_list
from muster_client.api.instances import instance_list
from muster_client.api.operations import operation_show
from muster_client.api.snapshots import snapshot_create, snapshot_delete, snapshot_member_list, snapshot_show
from muster_client.models import (
    CreateDeployment,
    CreateImage,
    CreateSnapshot,
    Deployment,
    DeploymentSource,
    DeploymentState,
    ErrorCode,
    Image,
    InstanceState,
    Labels,
    LabelsPatch,
    Operation,
    OperationState,
    PatchDeployment,
    Problem,
    Runtime,
    Select,
    Snapshot,
    SnapshotState,
    Version,
)
from muster_client.types import File, Response

CONTENT = bytes(range(256)) * 4096

# With it the client raises an error for each status that the document does not name.
client = AuthenticatedClient(
    base_url=os.environ["MUSTER_URL"],
    token=os.environ["MUSTER_TOKEN"],
    verify_ssl=os.environ["MUSTER_CA"],
    raise_on_unexpected_status=True,
)


T = TypeVar("T")


def got(kind: type[T], response: Response) -> T:
    """The answer, which must have been read into this type."""
    assert isinstance(response.parsed, kind), f"expected {kind.__name__}, got {response.status_code}: {response.parsed}"
    return response.parsed


def refused(code: ErrorCode, response: Response) -> Problem:
    """The problem of an answer that must have this code."""
    problem = got(Problem, response)
    assert problem.code == code, problem
    assert problem.status == response.status_code, problem
    return problem


def wait(response: Response) -> Operation:
    """Waits until the work that this answer began has succeeded."""
    operation = got(Operation, response)
    assert response.headers["Location"] == f"/v1/operations/{operation.id}"
    while operation.finished_at is None:
        operation = got(Operation, operation_show.sync_detailed(operation.id, client=client, wait="30s"))
    assert operation.state == OperationState.SUCCEEDED and operation.error is None, operation
    return operation


assert health_show.sync(client=client) == "ok\n"

image = got(Image, image_create.sync_detailed(client=client, body=CreateImage(name="py-base")))
assert image.newest_version is None
content = File(payload=io.BytesIO(CONTENT))
version = got(Version, image_content_put.sync_detailed("py-base", client=client, body=content))
assert (version.size_bytes, version.image) == (len(CONTENT), image.id)
read = image_content_read.sync_detailed("py-base", client=client, range_="bytes=0-255")
assert (read.status_code, got(File, read).payload.read()) == (206, CONTENT[:256])

order = CreateDeployment(
    name="py-web", source=DeploymentSource(image="py-base"), count=2, runtime=Runtime.NONE, labels=Labels.from_dict({"a": "b"})
)
key = str(uuid4())
began = deployment_create.sync_detailed(client=client, body=order, idempotency_key=key)
repeated = deployment_create.sync_detailed(client=client, body=order, idempotency_key=key)
assert repeated.headers["Idempotent-Replay"] == "true" and got(Operation, repeated).id == got(Operation, began).id
wait(began)
web = got(Deployment, deployment_show.sync_detailed("py-web", client=client))
assert (web.state, web.ready, web.labels.to_dict()) == (DeploymentState.READY, 2, {"a": "b"})
patch = PatchDeployment(labels=LabelsPatch.from_dict({"a": "c"}))
patched = got(Deployment, deployment_patch.sync_detailed("py-web", client=client, body=patch, if_match=web.etag))
assert patched.labels.to_dict() == {"a": "c"}
refused(
    ErrorCode.PRECONDITION_FAILED,
    deployment_patch.sync_detailed("py-web", client=client, body=patch, if_match=web.etag),
)
members = instance_list.sync(client=client, deployment=["py-web"], state=[InstanceState.RUNNING], limit=1)
assert len(members.items) == 1 and members.next_page_token and members.items[0].disks[0].path

wait(snapshot_create.sync_detailed(client=client, body=CreateSnapshot(name="py-monday", select=Select(deployment="py-web"))))
monday = got(Snapshot, snapshot_show.sync_detailed("py-monday", client=client))
assert (monday.state, monday.members) == (SnapshotState.READY, 2)
assert all(member.version for member in snapshot_member_list.sync("py-monday", client=client).items)

refused(ErrorCode.NOT_FOUND, deployment_show.sync_detailed("nobody", client=client))
taken = refused(ErrorCode.NAME_TAKEN, image_create.sync_detailed(client=client, body=CreateImage(name="py-base")))
assert taken["existing"] == str(image.id)
unfit = refused(ErrorCode.INVALID, deployment_create.sync_detailed(client=client, body=CreateDeployment(source=order.source, count=0)))
assert unfit.errors[0].pointer == "/count"
stranger = AuthenticatedClient(
    base_url=os.environ["MUSTER_URL"], token="nonsense", verify_ssl=os.environ["MUSTER_CA"]
)
refused(ErrorCode.UNAUTHENTICATED, image_list.sync_detailed(client=stranger))

wait(snapshot_delete.sync_detailed("py-monday", client=client))
wait(deployment_delete.sync_detailed("py-web", client=client))
refused(ErrorCode.NOT_FOUND, deployment_show.sync_detailed("py-web", client=client))
