import type { Snapshot } from "../../api/snapshots.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { count } from "../../ui/format.ts";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import type { Column } from "../../ui/table/ThingsTable.tsx";
import { pauseText } from "./snapshot-words.ts";

export const snapshotColumns: readonly Column<Snapshot>[] = [
  {
    key: "state",
    title: "State",
    value: (snapshot) => snapshot.state,
    cell: (snapshot) => <StateBadge state={snapshot.state} reason={snapshot.reason} />,
    width: 150,
  },
  {
    key: "name",
    title: "Name",
    value: (snapshot) => snapshot.name,
    cell: (snapshot) => <ThingLink kind="snapshot" id={snapshot.id} name={snapshot.name} project={snapshot.project} />,
  },
  {
    key: "deployment",
    title: "Of deployment",
    value: (snapshot) => snapshot.deployment_name,
    cell: (snapshot) =>
      snapshot.deployment === null ? (
        "–"
      ) : (
        <ThingLink
          kind="deployment"
          id={snapshot.deployment}
          name={snapshot.deployment_name}
          project={snapshot.project}
        />
      ),
    from: "md",
  },
  {
    key: "members",
    title: "Disks",
    value: (snapshot) => snapshot.members,
    cell: (snapshot) => count(snapshot.members),
    align: "right",
    width: 76,
    from: "sm",
  },
  {
    key: "left",
    title: "Left out",
    value: (snapshot) => snapshot.skipped + snapshot.missing,
    cell: (snapshot) => left(snapshot),
    width: 150,
    from: "xl",
  },
  {
    key: "pause",
    title: "Longest pause",
    value: (snapshot) => snapshot.pause_max_ms,
    cell: (snapshot) => pauseText(snapshot.pause_max_ms),
    align: "right",
    width: 120,
    from: "md",
  },
  {
    key: "dirty",
    title: "Changed",
    value: (snapshot) => snapshot.dirty_bytes,
    cell: (snapshot) => <ByteSize value={snapshot.dirty_bytes} />,
    align: "right",
    width: 96,
    from: "lg",
  },
  {
    key: "stored",
    title: "Stored",
    value: (snapshot) => snapshot.stored_bytes,
    cell: (snapshot) => <ByteSize value={snapshot.stored_bytes} />,
    align: "right",
    width: 96,
    from: "sm",
  },
  {
    key: "cut",
    title: "Cut",
    value: (snapshot) => snapshot.cut_at,
    cell: (snapshot) => <TimeAgo time={snapshot.cut_at} />,
    width: 100,
  },
  {
    key: "taken",
    title: "Taken by",
    value: (snapshot) => (snapshot.scheduled ? "protection" : "people"),
    width: 110,
    from: "xl",
  },
  { key: "consistency", title: "Consistency", value: (snapshot) => snapshot.consistency, width: 110, hidden: true },
  {
    key: "created",
    title: "Requested",
    value: (snapshot) => snapshot.created_at,
    cell: (snapshot) => <TimeAgo time={snapshot.created_at} />,
    width: 100,
    hidden: true,
  },
  {
    key: "labels",
    title: "Labels",
    value: (snapshot) =>
      Object.entries(snapshot.labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(" "),
    width: 200,
    from: "xl",
  },
  { key: "project", title: "Project", value: (snapshot) => snapshot.project, width: 120, from: "xl" },
  { key: "id", title: "Id", value: (snapshot) => snapshot.id, width: 300, hidden: true },
];

function left({ skipped, missing }: Snapshot): string {
  const parts = [];
  if (skipped > 0) parts.push(`${count(skipped)} skipped`);
  if (missing > 0) parts.push(`${count(missing)} missing`);
  return parts.join(", ") || "–";
}
