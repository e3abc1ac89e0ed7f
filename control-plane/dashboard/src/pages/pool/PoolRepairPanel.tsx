import { Stack, Text } from "@mantine/core";
import type { Pool } from "../../api/pools.ts";
import { count } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ProgressBar } from "../../ui/ProgressBar.tsx";
import { repairFacts } from "./repair-words.ts";

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
        <KeyValues items={repairFacts(repair, "the agents began")} />
      </Stack>
    </Panel>
  );
}
