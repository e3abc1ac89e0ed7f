import { Button, SimpleGrid, Stack } from "@mantine/core";
import { useState } from "react";
import { useIsOperator } from "../../api/me.ts";
import { type Pool, usePool } from "../../api/pools.ts";
import { AdviceList } from "../../ui/AdviceList.tsx";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { Facts } from "../../ui/Facts.tsx";
import { bytes, count } from "../../ui/format.ts";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { Meter } from "../nodes/Meter.tsx";
import { adviceForPool } from "./advice.ts";
import { CopiesDialog } from "./CopiesDialog.tsx";
import { LostVersions } from "./LostVersions.tsx";
import { PoolRepairPanel } from "./PoolRepairPanel.tsx";
import { RepositoryPanel } from "./RepositoryPanel.tsx";
import { Shares } from "./Shares.tsx";
import { SweepNow } from "./SweepNow.tsx";
import { SweepPanel } from "./SweepPanel.tsx";

/** All objects on all nodes: how full the pool is, what it gives back, and which copies are made again. */
export default function PoolDetail() {
  const operator = useIsOperator();
  const { data: pool, error, refetch } = usePool(operator);
  if (!operator) {
    return (
      <Page title="Pool">
        <EmptyState title="The pool is for operators">
          Your token belongs to a project. Where its bytes are stored is decided by the cluster.
        </EmptyState>
      </Page>
    );
  }
  if (pool === undefined) return <WaitingPage title="Pool" error={error} onRetry={() => void refetch()} />;
  return <PoolPage pool={pool} error={error} />;
}

export function PoolPage({ pool, error = null }: { pool: Pool; error?: unknown }) {
  const { usage } = pool;
  const [asking, setAsking] = useState(false);
  return (
    <Page
      title="Pool"
      subtitle={`The shares of ${pool.nodes === 1 ? "1 node" : `${count(pool.nodes)} nodes`}. Each object has at least ${
        pool.min_copies === 1 ? "1 copy" : `${count(pool.min_copies)} copies`
      }, where there are as many nodes.`}
      actions={<SweepNow sweep={pool.sweep} />}
    >
      {error !== null && <ErrorBox error={error} title="What you see may be out of date" />}
      <AdviceList advice={adviceForPool(pool)} />
      <LostVersions lost={pool.lost ?? []} />
      <Panel
        title="Stored objects"
        aside={
          <Button size="compact-xs" variant="default" onClick={() => setAsking(true)}>
            Change the number of copies
          </Button>
        }
      >
        <Stack gap="md">
          <Meter label="Copies of objects" used={usage.used_bytes} total={usage.limit_bytes} format={bytes} />
          <Facts
            items={[
              ["Copies", count(usage.objects)],
              ["Free on the nodes' disks", bytes(usage.free_bytes)],
              ["Cache of clean chunks", bytes(usage.cache_bytes)],
            ]}
          />
        </Stack>
      </Panel>
      <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
        <SweepPanel sweep={pool.sweep} />
        <PoolRepairPanel pool={pool} />
      </SimpleGrid>
      {pool.repository && <RepositoryPanel repository={pool.repository} />}
      <Shares />
      {asking && <CopiesDialog pool={pool} onClose={() => setAsking(false)} />}
    </Page>
  );
}
