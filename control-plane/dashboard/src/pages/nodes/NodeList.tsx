import { Button, Text } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useMemo } from "react";
import { useIsOperator } from "../../api/me.ts";
import { type Node, useNodes, useSetSchedulable } from "../../api/nodes.ts";
import { useCommands } from "../../commands/registry.ts";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { bytes, count } from "../../ui/format.ts";
import { Page } from "../../ui/Page.tsx";
import { useSearchState } from "../../ui/search-state.ts";
import { type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { toastDone, toastError } from "../../ui/toast.tsx";
import { AddNode } from "./AddNode.tsx";
import { adviceFor } from "./advice.ts";
import { nodeColumns } from "./columns.tsx";
import { FoundPanel } from "./FoundPanel.tsx";

const facets: readonly Facet[] = [
  { key: "state", title: "State", options: ["ready", "joining", "silent", "stopped", "fenced", "leaving"] },
  { key: "placement", title: "Placement", options: ["open", "cordoned"] },
  { key: "zone", title: "Zone" },
];

const idOf = (node: Node) => node.id;

/** The hosts that run instances and hold the pool. */
export default function NodeList() {
  if (!useIsOperator()) {
    return (
      <Page title="Nodes">
        <EmptyState title="Nodes are for operators">
          Your token belongs to a project. Where its instances run is decided by the cluster.
        </EmptyState>
      </Page>
    );
  }
  return <Shown />;
}

function Shown() {
  const nodes = useNodes();
  const [search, setSearch] = useSearchState({ add: "", found: "" });
  const add = () => setSearch({ add: "1" });
  useCommands(() => [{ id: "add-node", title: "Add a node", words: "join host token", run: add }], []);
  const subtitle = useMemo(() => summary(nodes.data?.items), [nodes.data]);
  return (
    <Page
      title="Nodes"
      subtitle={subtitle}
      actions={
        <Button size="xs" leftSection={<IconPlus size={15} />} onClick={add}>
          Add a node
        </Button>
      }
    >
      <FoundPanel asked={search.found !== ""} />
      <ThingsTable
        name="nodes"
        rows={nodes.data?.items}
        complete={nodes.data?.complete ?? false}
        error={nodes.error}
        onRetry={() => void nodes.refetch()}
        rowId={idOf}
        columns={nodeColumns}
        facets={facets}
        sort="name"
        link={(node) => ({ to: "/nodes/$node", params: { node: node.id } })}
        bulk={(chosen, clear) => <Placement nodes={chosen} onDone={clear} />}
        empty={
          <EmptyState
            title="No node has joined yet"
            action={<Button onClick={add}>Add a node</Button>}
            cli="muster token create --role node"
          >
            <Text size="sm">
              Nodes are the hosts that run instances. Their disks together are the pool, which holds all images and
              versions. Nothing can be uploaded or deployed before the first has joined.
            </Text>
          </EmptyState>
        }
      />
      <AddNode opened={search.add !== ""} onClose={() => setSearch({ add: "" })} />
    </Page>
  );
}

/** One line about all nodes: whether they are well, and how much room they have. */
function summary(nodes: readonly Node[] | undefined): string {
  if (nodes === undefined) return "The hosts that run instances and hold the pool";
  if (nodes.length === 0) return "The hosts that run instances and hold the pool";
  const troubled = nodes.filter((node) => adviceFor(node).some(({ tone }) => tone === "bad" || tone === "warn")).length;
  const used = nodes.reduce((sum, node) => sum + node.pool.used_bytes, 0);
  const limit = nodes.reduce((sum, node) => sum + node.pool.limit_bytes, 0);
  const health =
    troubled === 0
      ? "All nodes are well"
      : troubled === 1
        ? "1 node needs attention"
        : `${count(troubled)} nodes need attention`;
  return `${health}. Their pool uses ${bytes(used)} of ${bytes(limit)}.`;
}

function Placement({ nodes, onDone }: { nodes: Node[]; onDone: () => void }) {
  const set = useSetSchedulable();
  const change = async (schedulable: boolean) => {
    const wanted = nodes.filter((node) => node.schedulable !== schedulable);
    try {
      for (const node of wanted) await set.mutateAsync({ node, schedulable });
      toastDone(
        `${wanted.length === 1 ? "1 node is" : `${wanted.length} nodes are`} ${schedulable ? "open again" : "cordoned"}`,
      );
      onDone();
    } catch (error) {
      toastError(error);
    }
  };
  return (
    <>
      <Button
        size="compact-sm"
        variant="default"
        disabled={!nodes.some(({ schedulable }) => schedulable)}
        onClick={() => void change(false)}
      >
        Cordon
      </Button>
      <Button
        size="compact-sm"
        variant="default"
        disabled={nodes.every(({ schedulable }) => schedulable)}
        onClick={() => void change(true)}
      >
        Uncordon
      </Button>
    </>
  );
}
