import { Button, Group, Text, TextInput } from "@mantine/core";
import { useState } from "react";
import { type FoundInstance, useForgetFound, useFound, useTakeFound } from "../../api/found.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { bytes, count } from "../../ui/format.ts";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { type Column, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { toastDone } from "../../ui/toast.tsx";

const nameOf = (found: FoundInstance) => found.name ?? found.id;
const unsaved = (found: FoundInstance) => found.disks.reduce((sum, disk) => sum + disk.unsaved_bytes, 0);
const idOf = (found: FoundInstance) => found.id;

const columns: readonly Column<FoundInstance>[] = [
  {
    key: "state",
    title: "State",
    value: (found) => found.state,
    cell: (found) => <StateBadge state={found.state} reason={found.reason} />,
    width: 120,
  },
  { key: "name", title: "Instance", value: nameOf },
  { key: "project", title: "Project", value: (found) => found.project ?? "not known", width: 110, from: "sm" },
  {
    key: "node",
    title: "Node",
    value: (found) => found.node_name,
    cell: (found) => <ThingLink kind="node" id={found.node} name={found.node_name} />,
    width: 130,
  },
  {
    key: "unsaved",
    title: "Unsaved",
    value: unsaved,
    cell: (found) => <ByteSize value={unsaved(found)} />,
    align: "right",
    width: 100,
    from: "sm",
  },
  {
    key: "found",
    title: "Found",
    value: (found) => found.created_at,
    cell: (found) => <TimeAgo time={found.created_at} />,
    width: 100,
    from: "md",
  },
  { key: "id", title: "Id", value: idOf, hidden: true, width: 300 },
];

/** Instances that the database does not know since it went back to an older copy: take them back, or forget them. */
export function FoundPanel({ asked }: { asked: boolean }) {
  const found = useFound();
  const items = found.data?.items ?? [];
  if (items.length === 0 && !asked) return null;
  return (
    <Panel title="Instances that the database does not know">
      {items.length === 0 ? (
        <Text size="sm" c="dimmed">
          {found.isPending ? "Looking …" : "There are none. Every instance that nodes hold is known."}
        </Text>
      ) : (
        <>
          <Text size="sm" c="dimmed" mb="sm">
            The database is an older copy than what the nodes have. These instances run on and nothing is done with them
            until you decide: take them back, or forget them, which deletes their disks.
          </Text>
          <ThingsTable
            name="found instances"
            prefix="found-"
            rows={items}
            complete={found.data?.complete ?? false}
            error={found.error}
            onRetry={() => void found.refetch()}
            rowId={idOf}
            columns={columns}
            sort="name"
            bulk={(chosen, clear) => <Decide chosen={chosen} onDone={clear} />}
          />
        </>
      )}
    </Panel>
  );
}

function Decide({ chosen, onDone }: { chosen: FoundInstance[]; onDone: () => void }) {
  const [asking, setAsking] = useState<"take" | "forget">();
  const [deployment, setDeployment] = useState("");
  const [project, setProject] = useState("");
  const take = useTakeFound();
  const forget = useForgetFound();
  const [only] = chosen;
  const what = chosen.length === 1 && only !== undefined ? nameOf(only) : `${count(chosen.length)} instances`;
  const lost = chosen.reduce((sum, found) => sum + unsaved(found), 0);
  const nameless = chosen.some((found) => found.name === null || found.project === null);
  return (
    <>
      <Button size="compact-sm" onClick={() => setAsking("take")}>
        Take back
      </Button>
      <Button size="compact-sm" color="red" variant="outline" onClick={() => setAsking("forget")}>
        Forget
      </Button>
      <ConfirmDialog
        opened={asking === "take"}
        onClose={() => setAsking(undefined)}
        title={`Take ${what} back?`}
        confirm="Take back"
        onConfirm={async () => {
          for (const found of chosen) await take.mutateAsync({ found, deployment, project });
          toastDone(`${what} ${chosen.length === 1 ? "is" : "are"} known again`);
          onDone();
        }}
      >
        <Text size="sm" mb="sm">
          {chosen.length === 1 ? "It becomes an instance" : "They become instances"} again, with id, disks and what{" "}
          {chosen.length === 1 ? "it does" : "they do"} now. Nothing is restarted.
        </Text>
        <Group grow align="flex-start">
          <TextInput
            label="Deployment"
            description={nameless ? "Its node does not know its own: name one." : "That which it had if left out."}
            value={deployment}
            onChange={(event) => setDeployment(event.currentTarget.value)}
          />
          <TextInput
            label="Project"
            description={nameless ? "The default project if left out." : "That which it had if left out."}
            value={project}
            onChange={(event) => setProject(event.currentTarget.value)}
          />
        </Group>
      </ConfirmDialog>
      <ConfirmDialog
        opened={asking === "forget"}
        onClose={() => setAsking(undefined)}
        title={`Forget ${what}?`}
        confirm="Forget and delete the disks"
        danger
        typed="forget"
        onConfirm={async () => {
          for (const found of chosen) await forget.mutateAsync(found);
          toastDone(`${what} ${chosen.length === 1 ? "is" : "are"} given up`);
          onDone();
        }}
      >
        <Text size="sm">
          The node cuts {chosen.length === 1 ? "its" : "their"} power and deletes{" "}
          {chosen.length === 1 ? "its" : "their"} disks.{" "}
          {lost === 0
            ? "As far as the node knows, versions have all of their bytes."
            : `${bytes(lost)} that no version has are lost for good.`}
        </Text>
      </ConfirmDialog>
    </>
  );
}
