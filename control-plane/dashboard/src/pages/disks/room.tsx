import type { ReactNode } from "react";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";

interface Room {
  size_bytes: number;
  unsaved_bytes: number;
  saved_at: string | null;
  version: string;
}

/** How large a disk is and what of it is saved, for a list of facts. */
export function roomOf(disk: Room, project: string): [string, ReactNode][] {
  return [
    ["Size", <ByteSize key="size" value={disk.size_bytes} />],
    ["Unsaved", <ByteSize key="unsaved" value={disk.unsaved_bytes} />],
    ["Saved", disk.saved_at === null ? "never" : <TimeAgo key="saved" time={disk.saved_at} />],
    [
      disk.saved_at === null ? "Started from version" : "Last saved version",
      <ThingLink
        key="version"
        kind="version"
        id={disk.version}
        name={`…${disk.version.slice(-8)}`}
        project={project}
      />,
    ],
  ];
}
