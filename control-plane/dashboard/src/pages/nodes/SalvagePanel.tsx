import { Button, Text } from "@mantine/core";
import { useState } from "react";
import { type Node, type Salvage, useGiveUpSalvage, useSalvage } from "../../api/nodes.ts";
import { searchOf } from "../../api/scope.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { ButtonLink } from "../../ui/links.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ToneIcon } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { type Column, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { toastDone } from "../../ui/toast.tsx";

const words: Record<string, string> = { awaited: "awaited", saved: "saved", given_up: "given up" };

const columns: readonly Column<Salvage>[] = [
  {
    key: "state",
    title: "State",
    value: (disk) => words[disk.state] ?? disk.state,
    cell: (disk) => (
      <span style={{ display: "inline-flex", gap: 6, alignItems: "center" }}>
        <ToneIcon tone={disk.state === "saved" ? "good" : disk.state === "awaited" ? "busy" : "idle"} />
        {words[disk.state] ?? disk.state}
      </span>
    ),
    width: 110,
  },
  {
    key: "instance",
    title: "Disk of",
    value: (disk) => disk.instance_name,
    cell: (disk) => <ThingLink kind="instance" id={disk.instance} name={disk.instance_name} project={disk.project} />,
  },
  { key: "project", title: "Project", value: (disk) => disk.project, width: 110, from: "md" },
  {
    key: "detail",
    title: "What became of it",
    value: (disk) => disk.detail,
    cell: (disk) => <span title={disk.detail ?? ""}>{disk.detail ?? "–"}</span>,
    from: "md",
  },
  {
    key: "version",
    title: "Saved as",
    value: (disk) => disk.version,
    cell: (disk) =>
      disk.version ? (
        <ButtonLink
          size="compact-xs"
          variant="default"
          to="/versions/$version"
          params={{ version: disk.version }}
          search={searchOf(disk.project)}
        >
          Show
        </ButtonLink>
      ) : (
        "–"
      ),
    width: 90,
  },
  {
    key: "updated",
    title: "Since",
    value: (disk) => disk.updated_at,
    cell: (disk) => <TimeAgo time={disk.updated_at} />,
    width: 90,
    from: "sm",
  },
];

const idOf = (disk: Salvage) => disk.disk;

/** The disks that were on a node when it was declared dead, and whether they were saved since. */
export function SalvagePanel({ node }: { node: Node }) {
  const salvage = useSalvage(node.id, true);
  const [asking, setAsking] = useState(false);
  const giveUp = useGiveUpSalvage();
  const awaited = salvage.data?.items.filter(({ state }) => state === "awaited").length ?? 0;
  return (
    <Panel
      title="Disks that were on it"
      aside={
        awaited > 0 && (
          <Button size="compact-xs" variant="default" onClick={() => setAsking(true)}>
            Wait no longer
          </Button>
        )
      }
    >
      <Text size="sm" c="dimmed" mb="sm">
        If the host comes back, its agent saves what these disks hold and no version has. Nothing is started there.
      </Text>
      <ThingsTable
        name="disks"
        prefix="salvage-"
        rows={salvage.data?.items}
        complete={salvage.data?.complete ?? false}
        error={salvage.error}
        onRetry={() => void salvage.refetch()}
        rowId={idOf}
        columns={columns}
        sort="instance"
        empty={<Text size="sm">No disk was on it.</Text>}
      />
      <ConfirmDialog
        opened={asking}
        onClose={() => setAsking(false)}
        title={`Wait no longer for the disks of ${node.name}?`}
        confirm="Wait no longer"
        danger
        onConfirm={async () => {
          await giveUp.mutateAsync(node);
          toastDone(`Nothing is awaited from ${node.name} any more`);
        }}
      >
        <Text size="sm">
          The key of the node is refused from then on, so what{" "}
          {awaited === 1 ? "1 disk holds" : `${awaited} disks hold`} can no longer be saved by itself. Its data folder
          is kept.
        </Text>
      </ConfirmDialog>
    </Panel>
  );
}
