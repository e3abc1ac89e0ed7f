import { Stack, Text } from "@mantine/core";
import type { Instance } from "../../api/instances.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { CopyId } from "../../ui/CopyId.tsx";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { unsavedBytes } from "./columns.tsx";
import classes from "./InstanceDetail.module.css";

/** The disks: what is saved of each, what is not, and for operators where its file is. */
export function DisksPanel({ instance }: { instance: Instance }) {
  const { disks, project } = instance;
  return (
    <Panel title={disks.length === 1 ? "Disk" : "Disks"}>
      <Stack gap="md" className={classes.disks}>
        {disks.map((disk) => (
          <div key={disk.id}>
            <KeyValues
              items={[
                ["Name", disk.name],
                ["Size", <ByteSize key="size" value={disk.size_bytes} />],
                ["Unsaved", <ByteSize key="unsaved" value={disk.unsaved_bytes} />],
                ["Saved", disk.saved_at === null ? "never" : <TimeAgo key="saved" time={disk.saved_at} />],
                [
                  disk.saved_at === null ? "Started from version" : "Last saved version",
                  <ThingLink
                    key="version"
                    kind="version"
                    id={disk.version}
                    name={`…${disk.version.slice(-8)}`}
                    project={project}
                  />,
                ],
              ]}
            />
            {disk.path !== undefined && (
              <Text size="sm" c="dimmed" component="div" mt="xs">
                <CopyId value={disk.path} label="path of its file on the node" />
              </Text>
            )}
          </div>
        ))}
        {unsavedBytes(instance) > 0 && (
          <Text size="xs" c="dimmed">
            Unsaved bytes are on this node only. They survive a crash of the node, but not its loss: take a snapshot to
            save them.
          </Text>
        )}
      </Stack>
    </Panel>
  );
}
