import { Button, Group, Stack, Text } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useState } from "react";
import { useDisksOf } from "../../api/disks.ts";
import type { Instance } from "../../api/instances.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { AttachToInstance } from "../disks/AttachDialog.tsx";
import { DiskActions } from "../disks/DiskActions.tsx";
import { takesDisks } from "../disks/disk-words.ts";
import { roomOf } from "../disks/room.tsx";
import { unsavedBytes } from "./columns.tsx";
import classes from "./InstanceDetail.module.css";

/** The disks: what is saved of each, what is not, what can be done with it, and for operators where its file is. */
export function DisksPanel({ instance }: { instance: Instance }) {
  const { disks, project } = instance;
  const [attaching, setAttaching] = useState(false);
  const states = new Map(useDisksOf(instance).data?.items.map((disk) => [disk.id, disk]));
  return (
    <Panel
      title={disks.length === 1 ? "Disk" : "Disks"}
      aside={
        takesDisks(instance) && (
          <Button
            size="compact-xs"
            variant="default"
            leftSection={<IconPlus size={13} />}
            onClick={() => setAttaching(true)}
          >
            Attach a disk
          </Button>
        )
      }
    >
      <Stack gap="md" className={classes.disks}>
        {disks.map((disk) => {
          const known = states.get(disk.id);
          return (
            <div key={disk.id}>
              <KeyValues
                items={[
                  ["Name", <ThingLink key="name" kind="disk" id={disk.id} name={disk.name} project={project} />],
                  ...roomOf(disk, project),
                ]}
              />
              {disk.path !== undefined && (
                <Text size="sm" c="dimmed" component="div" mt="xs">
                  <CopyId value={disk.path} label="path of its file on the node" />
                </Text>
              )}
              {known !== undefined && (
                <Group gap="sm" mt="xs">
                  {known.state !== "attached" && <StateBadge state={known.state} />}
                  <DiskActions disk={known} size="compact-xs" />
                  {known.detail !== null && (
                    <Text size="sm" style={{ overflowWrap: "anywhere" }}>
                      Waits for: {known.detail}
                    </Text>
                  )}
                </Group>
              )}
            </div>
          );
        })}
        {unsavedBytes(instance) > 0 && (
          <Text size="xs" c="dimmed">
            Unsaved bytes are on this node only. They survive a crash of the node, but not its loss: take a snapshot to
            save them.
          </Text>
        )}
      </Stack>
      <AttachToInstance opened={attaching} onClose={() => setAttaching(false)} instance={instance} />
    </Panel>
  );
}
