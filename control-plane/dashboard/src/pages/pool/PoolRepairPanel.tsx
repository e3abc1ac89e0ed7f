import { Stack, Text } from "@mantine/core";
import type { Pool, PoolRepair } from "../../api/pools.ts";
import { count } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ProgressBar } from "../../ui/ProgressBar.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { copies, repairFacts } from "./repair-words.ts";

/** `24,500 of 24,810`; undefined where the controller does not tell. */
function amounts(present: PoolRepair["present"], wanted: PoolRepair["wanted"]): string | undefined {
  if (present === undefined || wanted === undefined) return undefined;
  return `${count(present.objects)} of ${count(wanted.objects)}`;
}

/** An epoch is open while nodes still have to hand over what a newer one gave to others. */
function openEpochs({ oldest_open_epoch: oldest, membership_epoch: newest }: Pool): string | undefined {
  if (oldest === undefined || newest === undefined || oldest >= newest) return undefined;
  return `${count(oldest)} to ${count(newest)}: objects are being handed over`;
}

/** How far all nodes are with making copies again that are missing. */
export function PoolRepairPanel({ pool }: { pool: Pool }) {
  const { repair, nodes } = pool;
  const words = `${count(repair.nodes_done)} of ${count(nodes)} nodes have nothing left to send`;
  return (
    <Panel title="Repair">
      <Stack gap="md">
        <div>
          <Text size="sm" mb={6}>
            {words}
          </Text>
          <ProgressBar done={repair.nodes_done} total={nodes} label={words} />
        </div>
        <KeyValues
          items={[
            ["Copies where they belong", amounts(repair.present, repair.wanted)],
            ...repairFacts(repair, "the agents began", repair.ends_at),
            ["Expected end", repair.ends_at ? <TimeAgo key="end" time={repair.ends_at} /> : undefined],
            ["Too many", repair.surplus === undefined ? undefined : copies(repair.surplus)],
            ["Handed over since then", repair.handed_over === undefined ? undefined : copies(repair.handed_over)],
            ["Membership epochs that are open", openEpochs(pool)],
          ]}
        />
      </Stack>
    </Panel>
  );
}
