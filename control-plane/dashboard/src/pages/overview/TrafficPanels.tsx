import { SimpleGrid, Skeleton } from "@mantine/core";
import { Suspense } from "react";
import { type Traffic, useTraffic } from "../../api/traffic.ts";
import { lazyPart } from "../../app/parts.ts";
import { Panel } from "../../ui/Panel.tsx";
import type { Line } from "./traffic.ts";

const TrafficChart = lazyPart(() => import("./TrafficChart.tsx"));

/** Network and disk traffic of the last hour, of the cluster or of one node. Nothing where it is not offered. */
export function TrafficPanels({ node }: { node?: string }) {
  const { data: traffic, isError } = useTraffic(node);
  if (traffic === null || isError) return null;
  const of = (key: keyof Traffic["series"]) => traffic?.series[key] ?? [];
  return (
    <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
      <Chart
        title="Network, last hour"
        traffic={traffic}
        lines={[
          { title: "Fetched from other nodes", steps: of("fetched_bytes") },
          { title: "Served to other nodes", steps: of("served_bytes") },
        ]}
      />
      <Chart
        title="Disks of instances, last hour"
        traffic={traffic}
        lines={[
          { title: "Read", steps: of("read_bytes") },
          { title: "Written", steps: of("written_bytes") },
        ]}
      />
    </SimpleGrid>
  );
}

function Chart({ title, traffic, lines }: { title: string; traffic: Traffic | undefined; lines: Line[] }) {
  return (
    <Panel title={title}>
      {traffic === undefined ? (
        <Skeleton height={190} />
      ) : (
        <Suspense fallback={<Skeleton height={190} />}>
          <TrafficChart title={title} traffic={traffic} lines={lines} />
        </Suspense>
      )}
    </Panel>
  );
}
