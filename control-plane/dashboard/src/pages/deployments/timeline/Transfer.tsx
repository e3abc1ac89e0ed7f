import { Stack, Text } from "@mantine/core";
import type { Deployment } from "../../../api/deployments.ts";
import { ByteSize } from "../../../ui/ByteSize.tsx";
import { bytes, percent } from "../../../ui/format.ts";
import { KeyValues } from "../../../ui/KeyValues.tsx";
import { Panel } from "../../../ui/Panel.tsx";
import { ProgressBar } from "../../../ui/ProgressBar.tsx";

/** What came over the network for the disks, and what guests wrote. The API tells it to operators only. */
export function Transfer({ deployment }: { deployment: Deployment }) {
  const { fetched_bytes: fetched, local_bytes: local, count, disk_bytes } = deployment;
  if (fetched === undefined || local === undefined) return null;
  const whole = count * disk_bytes;
  return (
    <Panel title="Bytes of its disks">
      <Stack gap="sm">
        <ProgressBar
          done={fetched}
          total={whole}
          label={`${bytes(fetched)} fetched of ${bytes(whole)} that copies of all disks would take`}
        />
        <Text size="xs" c="dimmed">
          {percent(fetched, whole)} of what copies of all disks would take.
        </Text>
        <KeyValues
          items={[
            ["Fetched from other nodes", <ByteSize key="fetched" value={fetched} />],
            ["Written by guests", <ByteSize key="local" value={local} />],
            ["All disks, whole", <ByteSize key="whole" value={whole} />],
          ]}
        />
      </Stack>
    </Panel>
  );
}
