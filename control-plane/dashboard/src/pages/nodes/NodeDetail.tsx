import { Button, SimpleGrid, Stack, Text } from "@mantine/core";
import { useParams } from "@tanstack/react-router";
import { useState } from "react";
import { type Instance, useInstances } from "../../api/instances.ts";
import { type Node, useAcknowledge, useNode } from "../../api/nodes.ts";
import { searchOf } from "../../api/scope.ts";
import { AdviceList } from "../../ui/AdviceList.tsx";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { CopyId } from "../../ui/CopyId.tsx";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { Facts } from "../../ui/Facts.tsx";
import { bytes, count } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { ButtonLink, TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { toastDone } from "../../ui/toast.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { firmwareText } from "../images/words.ts";
import { InstanceActions } from "../instances/actions/InstanceActions.tsx";
import { operatorColumns } from "../instances/columns.tsx";
import { TrafficPanels } from "../overview/TrafficPanels.tsx";
import { copies } from "../pool/repair-words.ts";
import { adviceFor, noteOf } from "./advice.ts";
import { DrainPanel } from "./DrainPanel.tsx";
import { Meter } from "./Meter.tsx";
import { NodeActions } from "./NodeActions.tsx";
import { NodeLinks } from "./NodeLinks.tsx";
import { RepairPanel } from "./RepairPanel.tsx";
import { SalvagePanel } from "./SalvagePanel.tsx";
import { ScrubPanel } from "./ScrubPanel.tsx";

/** One host: whether it is well, how full it is, what runs there. */
export default function NodeDetail() {
  const { node: id } = useParams({ from: "/framed/nodes/$node" });
  const { data: node, error, refetch } = useNode(id);
  const crumbs = [
    <TextLink key="list" to="/nodes">
      Nodes
    </TextLink>,
  ];
  if (node === undefined) {
    return <WaitingPage title="Node" error={error} onRetry={() => void refetch()} crumbs={crumbs} />;
  }
  const { capacity, pool } = node;
  return (
    <Page
      title={node.name}
      badge={<StateBadge state={node.state} reason={noteOf(node)} />}
      subtitle={
        <>
          Last seen <TimeAgo time={node.last_seen_at} />
          {node.zone !== null && `, zone ${node.zone}`}
        </>
      }
      crumbs={crumbs}
      actions={<NodeActions node={node} />}
    >
      {error !== null && <ErrorBox error={error} title="What you see may be out of date" />}
      <AdviceList advice={adviceFor(node)} action={({ key }) => <AdviceAction node={node} advice={key} />} />
      <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
        <Panel title="Capacity">
          <Stack gap="md">
            <Meter label="Processors" used={capacity.cpus_used} total={capacity.cpus} format={count} warns={false} />
            <Meter
              label="Memory"
              used={capacity.memory_used_bytes}
              total={capacity.memory_bytes}
              format={bytes}
              warns={false}
            />
          </Stack>
        </Panel>
        <Panel title="Its share of the pool">
          <Stack gap="md">
            <Meter label="Stored objects" used={pool.used_bytes} total={pool.limit_bytes} format={bytes} />
            <Facts
              items={[
                ["Objects", count(pool.objects)],
                ["Free on its file system", bytes(pool.free_bytes)],
                ["Cache of clean chunks", bytes(pool.cache_bytes)],
              ]}
            />
          </Stack>
        </Panel>
      </SimpleGrid>
      {node.drain && <DrainPanel drain={node.drain} />}
      <SimpleGrid cols={{ base: 1, md: node.repair && node.scrub ? 2 : 1 }} spacing="md">
        {node.repair && <RepairPanel repair={node.repair} endsAt={node.repair_ends_at} />}
        {node.scrub && <ScrubPanel scrub={node.scrub} />}
      </SimpleGrid>
      {node.state === "fenced" && <SalvagePanel node={node} />}
      <Instances node={node} />
      <TrafficPanels node={node.id} />
      <NodeLinks node={node.id} />
      <Panel title="Facts">
        <KeyValues
          items={[
            ["Address for other nodes", <CopyId key="address" value={node.address} label="address" />],
            ["Runtimes", node.runtimes.join(", ")],
            [
              "Runs guests by",
              node.hypervisor === "kvm" ? "KVM" : node.hypervisor === "qemu" ? "emulation" : "nothing",
            ],
            [
              "Guests can have",
              node.hypervisor === null ? undefined : ["BIOS", ...node.features.map(featureText)].join(", "),
            ],
            [
              "Written to the repository",
              node.repository
                ? (node.repository.trouble ??
                  (node.repository.behind.objects === 0 ? "all" : `all but ${copies(node.repository.behind)}`))
                : undefined,
            ],
            ["Agent", node.agent_version],
            ["Zone", node.zone],
            ["Joined", <TimeAgo key="joined" time={node.created_at} />],
            ["Id", <CopyId key="id" value={node.id} />],
          ]}
        />
      </Panel>
    </Page>
  );
}

const featureText = (feature: string) => (feature === "tpm" ? "TPM" : firmwareText(feature));

/** The button that does what is advised, where there is one. */
function AdviceAction({ node, advice }: { node: Node; advice: string }) {
  if (advice === "objects_lost" && node.pool.lost_objects > 0) return <Acknowledge node={node} />;
  if (advice !== "fenced") return null;
  return (
    <ButtonLink
      size="xs"
      variant="default"
      to="/instances"
      search={{ state: ["failed"], reason: ["node_lost"] } as never}
    >
      Show lost instances
    </ButtonLink>
  );
}

function Acknowledge({ node }: { node: Node }) {
  const [asking, setAsking] = useState(false);
  const acknowledge = useAcknowledge();
  return (
    <>
      <Button size="xs" variant="default" onClick={() => setAsking(true)}>
        Acknowledge
      </Button>
      <ConfirmDialog
        opened={asking}
        onClose={() => setAsking(false)}
        title={`Acknowledge what ${node.name} has lost?`}
        confirm="Acknowledge"
        onConfirm={async () => {
          await acknowledge.mutateAsync(node);
          toastDone(`The losses of ${node.name} are noted`);
        }}
      >
        <Text size="sm">
          {count(node.pool.lost_objects)} objects with {bytes(node.pool.lost_bytes)} are no longer shown as lost.
          Nothing else changes: copies on other nodes are still used, and what has no copy stays lost.
        </Text>
      </ConfirmDialog>
    </>
  );
}

const facets: readonly Facet[] = [
  { key: "state", title: "State" },
  { key: "deployment", title: "Deployment" },
];
const columns = operatorColumns.filter(({ key }) => key !== "node");
const idOf = (instance: Instance) => instance.id;

/** What runs on the node, of all projects that are shown. */
function Instances({ node }: { node: Node }) {
  const instances = useInstances({ node: [node.id] });
  return (
    <Panel title={`Instances on it${instances.data?.complete ? `: ${count(instances.data.items.length)}` : ""}`}>
      <ThingsTable
        name="instances"
        prefix="i-"
        rows={instances.data?.items}
        complete={instances.data?.complete ?? false}
        error={instances.error}
        onRetry={() => void instances.refetch()}
        rowId={idOf}
        columns={columns}
        facets={facets}
        sort="name"
        link={(instance) => ({
          to: "/instances/$instance",
          params: { instance: instance.id },
          search: searchOf(instance.project),
        })}
        bulk={(chosen, clear) => <InstanceActions instances={chosen} onDone={clear} size="compact-sm" />}
        empty={
          <Text size="sm" c="dimmed">
            No instance is on it.
            {node.state === "ready" && node.schedulable && " New ones are placed here when there is need and room."}
          </Text>
        }
      />
    </Panel>
  );
}
