import { Text } from "@mantine/core";
import { useParams } from "@tanstack/react-router";
import { type Disk, useDisk } from "../../api/disks.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { DiskActions } from "./DiskActions.tsx";
import { diskMeans, namedBy } from "./disk-words.ts";
import { roomOf } from "./room.tsx";

const crumbs = [
  <TextLink key="list" to="/disks">
    Disks
  </TextLink>,
];

/** One disk: whose it is, what it holds, and what can be done with it. */
export default function DiskDetail() {
  const { disk: id } = useParams({ from: "/framed/disks/$disk" });
  const { data: disk, error, refetch } = useDisk(id);
  if (disk === undefined) {
    return <WaitingPage title="Disk" error={error} onRetry={() => void refetch()} crumbs={crumbs} />;
  }
  return <DiskPage key={disk.id} disk={disk} />;
}

export function DiskPage({ disk }: { disk: Disk }) {
  const { instance, instance_name, detached_from, project } = disk;
  return (
    <Page
      title={disk.name}
      badge={<StateBadge state={disk.state} />}
      crumbs={crumbs}
      subtitle={
        instance === null ? (
          detached_from && `It was a disk of ${detached_from}`
        ) : (
          <>
            A disk of <ThingLink kind="instance" id={instance} name={instance_name} project={project} />
          </>
        )
      }
      actions={<DiskActions disk={disk} />}
    >
      <Panel title="State">
        <Text size="sm">{diskMeans(disk)}</Text>
        {disk.detail !== null && (
          <Text size="sm" mt={4} style={{ overflowWrap: "anywhere" }}>
            What it waits for: {disk.detail}
          </Text>
        )}
      </Panel>
      <Panel title="Facts">
        <KeyValues
          items={[
            ...roomOf(disk, project),
            ["Created", <TimeAgo key="created" time={disk.created_at} />],
            ["Changed", <TimeAgo key="changed" time={disk.updated_at} />],
            ["Project", project],
            ["Id", <CopyId key="id" value={disk.id} />],
          ]}
        />
      </Panel>
      <Text size="xs" c="dimmed">
        The same at the command line: <CopyId value={`muster disk show ${namedBy(disk)}`} label="command" />
      </Text>
    </Page>
  );
}
