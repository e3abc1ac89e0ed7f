import type { Disk } from "../../api/disks.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import type { Column } from "../../ui/table/ThingsTable.tsx";

export const diskColumns: readonly Column<Disk>[] = [
  {
    key: "state",
    title: "State",
    value: (disk) => disk.state,
    cell: (disk) => <StateBadge state={disk.state} />,
    width: 120,
  },
  {
    key: "name",
    title: "Name",
    value: (disk) => disk.name,
    cell: (disk) => <ThingLink kind="disk" id={disk.id} name={disk.name} project={disk.project} />,
  },
  {
    key: "instance",
    title: "Instance",
    value: (disk) => disk.instance_name ?? disk.detached_from,
    cell: (disk) =>
      disk.instance === null ? (
        (disk.detached_from && `was of ${disk.detached_from}`) || "–"
      ) : (
        <ThingLink kind="instance" id={disk.instance} name={disk.instance_name} project={disk.project} />
      ),
  },
  {
    key: "size",
    title: "Size",
    value: (disk) => disk.size_bytes,
    cell: (disk) => <ByteSize value={disk.size_bytes} />,
    align: "right",
    width: 90,
  },
  {
    key: "unsaved",
    title: "Unsaved",
    value: (disk) => disk.unsaved_bytes,
    cell: (disk) => <ByteSize value={disk.unsaved_bytes} />,
    align: "right",
    width: 92,
    from: "sm",
  },
  {
    key: "saved",
    title: "Saved",
    value: (disk) => disk.saved_at,
    cell: (disk) => (disk.saved_at === null ? "never" : <TimeAgo time={disk.saved_at} />),
    width: 100,
    from: "md",
  },
  {
    key: "detail",
    title: "Waits for",
    value: (disk) => disk.detail,
    cell: (disk) => (disk.detail === null ? "" : <span title={disk.detail}>{disk.detail}</span>),
    from: "lg",
  },
  {
    key: "created",
    title: "Created",
    value: (disk) => disk.created_at,
    cell: (disk) => <TimeAgo time={disk.created_at} />,
    width: 100,
    from: "md",
  },
  { key: "project", title: "Project", value: (disk) => disk.project, width: 120, from: "xl" },
  { key: "id", title: "Id", value: (disk) => disk.id, width: 300, hidden: true },
];
