import { Alert, Button, Stack, Text } from "@mantine/core";
import { IconAlertTriangle, IconGitFork, IconHistory, IconPencil, IconTrash } from "@tabler/icons-react";
import { useParams } from "@tanstack/react-router";
import { useState } from "react";
import { useDeployments } from "../../api/deployments.ts";
import { searchOf } from "../../api/scope.ts";
import { type Snapshot, useDeleteSnapshot, usePatchSnapshot, useSnapshot } from "../../api/snapshots.ts";
import { useCommands } from "../../commands/registry.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { CopyId } from "../../ui/CopyId.tsx";
import { count, duration } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { ButtonLink, TextLink } from "../../ui/links.tsx";
import { watchOperation } from "../../ui/OperationWatch.tsx";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { toastDone, toastError } from "../../ui/toast.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { sizesOf } from "../deployments/wizard/again.ts";
import { LabelsPanel } from "../instances/LabelsPanel.tsx";
import { DeleteSnapshotDialog } from "./DeleteSnapshotDialog.tsx";
import { MembersTable } from "./MembersTable.tsx";
import { RenameDialog } from "./RenameDialog.tsx";
import { RestoreDialog } from "./RestoreDialog.tsx";
import classes from "./SnapshotDetail.module.css";
import { consistencies, pauseText, timesOf, whyFailed } from "./snapshot-words.ts";

const crumbs = [
  <TextLink key="list" to="/snapshots">
    Snapshots
  </TextLink>,
];

/** One snapshot: when it was cut, what that cost the guests, what it keeps, and what can be made of it. */
export default function SnapshotDetail() {
  const { snapshot: id } = useParams({ from: "/framed/snapshots/$snapshot" });
  const { data: snapshot, error, refetch } = useSnapshot(id);
  if (snapshot === undefined) {
    return <WaitingPage title="Snapshot" error={error} onRetry={() => void refetch()} crumbs={crumbs} />;
  }
  return <Shown snapshot={snapshot} />;
}

function Shown({ snapshot }: { snapshot: Snapshot }) {
  const [asking, setAsking] = useState<"rename" | "delete" | "restore">();
  const remove = useDeleteSnapshot();
  const patch = usePatchSnapshot(snapshot);
  const gone = snapshot.state === "deleted";
  const isReady = snapshot.state === "ready";
  const origin = useDeployments().data?.items.find(({ id }) => id === snapshot.deployment);
  useCommands(
    () =>
      gone
        ? []
        : [
            ...(isReady
              ? [
                  {
                    id: "restore",
                    title: `Put the disks back to ${snapshot.name}`,
                    words: "restore roll back",
                    run: () => setAsking("restore"),
                  },
                ]
              : []),
            { id: "rename", title: `Rename snapshot ${snapshot.name}`, run: () => setAsking("rename") },
            { id: "delete", title: `Delete snapshot ${snapshot.name}`, run: () => setAsking("delete") },
          ],
    [snapshot.name, gone, isReady],
  );
  return (
    <Page
      title={snapshot.name}
      badge={<StateBadge state={snapshot.state} />}
      crumbs={crumbs}
      subtitle={
        snapshot.deployment === null ? (
          <>
            Of chosen instances, asked for <TimeAgo time={snapshot.created_at} />
          </>
        ) : (
          <>
            Of deployment{" "}
            <ThingLink
              kind="deployment"
              id={snapshot.deployment}
              name={snapshot.deployment_name}
              project={snapshot.project}
            />
            , asked for <TimeAgo time={snapshot.created_at} />
          </>
        )
      }
      actions={
        gone ? undefined : (
          <>
            {isReady && (
              <ButtonLink
                size="xs"
                leftSection={<IconGitFork size={15} />}
                to="/deployments/new"
                search={{ ...searchOf(snapshot.project), snapshot: snapshot.name, ...sizesOf(origin) } as never}
              >
                Fork
              </ButtonLink>
            )}
            {isReady && (
              <Button
                size="xs"
                variant="default"
                leftSection={<IconHistory size={15} />}
                onClick={() => setAsking("restore")}
              >
                Restore
              </Button>
            )}
            <Button
              size="xs"
              variant="default"
              leftSection={<IconPencil size={15} />}
              onClick={() => setAsking("rename")}
            >
              Rename
            </Button>
            <Button
              size="xs"
              variant="default"
              leftSection={<IconTrash size={15} color="var(--state-bad)" />}
              onClick={() => setAsking("delete")}
            >
              Delete
            </Button>
          </>
        )
      }
    >
      <State snapshot={snapshot} />
      {snapshot.scheduled && isReady && (
        <Alert color="gray" title="It goes by itself">
          The protection of its deployment took it, and deletes it when its rules do not want it any more.{" "}
          <Button
            size="compact-xs"
            variant="default"
            loading={patch.isPending}
            onClick={() =>
              patch.mutate(
                { scheduled: false },
                {
                  onSuccess: () => toastDone(`${snapshot.name} stays until somebody deletes it`),
                  onError: (error) => toastError(error),
                },
              )
            }
          >
            Keep it
          </Button>
        </Alert>
      )}
      <div className={classes.columns}>
        <Stack gap="md" miw={0}>
          <Panel title="The cut">
            <Cut snapshot={snapshot} />
          </Panel>
          <MembersTable snapshot={snapshot} />
        </Stack>
        <Stack gap="md" miw={0} className={classes.side}>
          <Panel title="About it">
            <KeyValues
              items={[
                ["Taken by", snapshot.scheduled ? "the protection of its deployment" : undefined],
                ["Consistency", consistencies[snapshot.consistency]?.was ?? snapshot.consistency],
                ["Project", snapshot.project],
                ["Requested", <TimeAgo key="created" time={snapshot.created_at} />],
                ["Id", <CopyId key="id" value={snapshot.id} />],
              ]}
            />
          </Panel>
          <LabelsPanel labels={snapshot.labels} onSave={(labels) => patch.mutateAsync({ labels })} />
          <Panel title="What can be made of it">
            <Text size="sm">
              Fork starts a new deployment whose members begin with these disks, with ids, host names and addresses of
              their own. Instances that run now are not touched. Restore puts the disks of the members themselves back,
              under the names and addresses that they have.
            </Text>
          </Panel>
        </Stack>
      </div>
      <RenameDialog
        opened={asking === "rename"}
        onClose={() => setAsking(undefined)}
        name={snapshot.name}
        onSave={(name) => patch.mutateAsync({ name })}
      />
      {asking === "restore" && <RestoreDialog snapshot={snapshot} onClose={() => setAsking(undefined)} />}
      <DeleteSnapshotDialog
        opened={asking === "delete"}
        onClose={() => setAsking(undefined)}
        snapshots={[snapshot]}
        onConfirm={async () => watchOperation(await remove.mutateAsync(snapshot))}
      />
    </Page>
  );
}

function State({ snapshot }: { snapshot: Snapshot }) {
  if (snapshot.state === "failed") {
    const { says, next } = whyFailed(snapshot.reason);
    return (
      <Alert color="red" icon={<IconAlertTriangle size={18} />} title="Nothing of it was published" role="alert">
        {says} {next}
      </Alert>
    );
  }
  if (snapshot.state === "cutting") {
    return <Alert title="It is being cut">Writes are held for a moment on all members, and let go together.</Alert>;
  }
  if (snapshot.state === "saving") {
    return (
      <Alert title="It is cut, and is being saved">
        The guests run on already. It can be used once all of it is durable.
      </Alert>
    );
  }
  if (snapshot.state === "ready" && snapshot.missing > 0) {
    return (
      <Alert color="yellow" icon={<IconAlertTriangle size={18} />} title="It is not whole any more">
        {snapshot.missing === 1
          ? "Somebody deleted the version of one of its disks."
          : `Somebody deleted the versions of ${count(snapshot.missing)} of its disks.`}{" "}
        A fork starts without these members, and has to allow that.
      </Alert>
    );
  }
  if (snapshot.state === "deleted") {
    return (
      <Alert color="gray" title="It is deleted">
        It is shown for 24 hours. Nothing new can start from it.
      </Alert>
    );
  }
  return null;
}

function Cut({ snapshot }: { snapshot: Snapshot }) {
  const { cutMs, saveMs } = timesOf(snapshot);
  return (
    <KeyValues
      items={[
        ["Cut", <TimeAgo key="cut" time={snapshot.cut_at} />],
        ["From the request to the cut", duration(cutMs)],
        ["Durable", <TimeAgo key="durable" time={snapshot.durable_at} />],
        ["From the cut until durable", duration(saveMs)],
        [
          "Longest pause of a guest",
          <>
            {pauseText(snapshot.pause_max_ms)}{" "}
            <Text span size="xs" c="dimmed">
              of {count(snapshot.max_pause_ms)} ms allowed
            </Text>
          </>,
        ],
        ["Disks", count(snapshot.members)],
        [
          "Left out",
          snapshot.skipped === 0
            ? "none"
            : `${count(snapshot.skipped)} instances that were failed, pending or being deleted`,
        ],
        ["Changed since the versions before", <ByteSize key="dirty" value={snapshot.dirty_bytes} />],
        [
          "Newly stored",
          <>
            <ByteSize value={snapshot.stored_bytes} />{" "}
            <Text span size="xs" c="dimmed">
              one copy
            </Text>
          </>,
        ],
      ]}
    />
  );
}
