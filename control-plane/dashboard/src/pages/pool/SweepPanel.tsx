import { Group, Stack, Text } from "@mantine/core";
import type { Sweep } from "../../api/pools.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { count } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";

const meanings: Record<string, string> = {
  idle: "Nothing is to be done.",
  marking: "The controller counts what is needed.",
  sweeping: "Nodes drop what nothing needs.",
  held: "It may not go on.",
};

/** What the sweep does, and what its newest round gave back. */
export function SweepPanel({ sweep }: { sweep: Sweep }) {
  return (
    <Panel title="Sweep">
      <Stack gap="md">
        <div>
          <Group gap="sm">
            <StateBadge state={sweep.state} />
            <Text size="sm" c="dimmed">
              since <TimeAgo time={sweep.since} />
            </Text>
          </Group>
          <Text size="sm" c="dimmed" mt={4}>
            {sweep.reason ?? meanings[sweep.state]}
          </Text>
        </div>
        <KeyValues
          items={[
            [
              "Newest round",
              sweep.begun_at === null ? (
                "none yet"
              ) : (
                <>
                  {count(sweep.round)}, begun <TimeAgo time={sweep.begun_at} />
                </>
              ),
            ],
            ["Objects that something needs", sweep.needed_objects === null ? undefined : count(sweep.needed_objects)],
            ["Nodes that carried it out", count(sweep.nodes_done)],
            ["Nodes that it waits for", <Awaited key="awaited" sweep={sweep} />],
            ["Copies dropped", count(sweep.dropped_objects)],
            ["Bytes dropped", <ByteSize key="dropped" value={sweep.dropped_bytes} />],
            ["Disks got back", <ByteSize key="reclaimed" value={sweep.reclaimed_bytes} />],
          ]}
        />
      </Stack>
    </Panel>
  );
}

function Awaited({ sweep }: { sweep: Sweep }) {
  if (sweep.awaited.length === 0) return <>none</>;
  return sweep.awaited.map(({ id, name }, number) => (
    <span key={id}>
      {number > 0 && ", "}
      <ThingLink kind="node" id={id} name={name} />
    </span>
  ));
}
