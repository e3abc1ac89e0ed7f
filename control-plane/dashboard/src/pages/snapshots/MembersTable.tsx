import { useMemo } from "react";
import { type Snapshot, type SnapshotMember, useSnapshotMembers } from "../../api/snapshots.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { CopyId } from "../../ui/CopyId.tsx";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { type Column, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import classes from "./SnapshotDetail.module.css";
import { pauseText } from "./snapshot-words.ts";

const diskOf = (member: SnapshotMember) => member.disk;

/** The members of a snapshot, one row per disk, with the longest pause first. */
export function MembersTable({ snapshot }: { snapshot: Snapshot }) {
  const members = useSnapshotMembers(snapshot);
  const items = members.data?.items;
  const { project } = snapshot;
  const longest = useMemo(() => Math.max(0, ...(items ?? []).map(({ pause_ms }) => pause_ms ?? 0)), [items]);
  const columns = useMemo((): readonly Column<SnapshotMember>[] => {
    const share = (ms: number) => (longest > 0 ? `${(100 * ms) / longest}%` : "0%");
    return [
      {
        key: "instance",
        title: "Instance",
        value: (member) => member.instance_name,
        cell: (member) => (
          <ThingLink kind="instance" id={member.instance} name={member.instance_name} project={project} />
        ),
      },
      {
        key: "pause",
        title: "Pause",
        value: (member) => member.pause_ms,
        cell: (member) =>
          member.pause_ms === null || member.pause_ms === undefined ? (
            "–"
          ) : (
            <>
              <span className={classes.bar} aria-hidden>
                <span style={{ width: share(member.pause_ms) }} />
              </span>
              {pauseText(member.pause_ms)}
            </>
          ),
        width: 160,
      },
      {
        key: "dirty",
        title: "Changed",
        value: (member) => member.dirty_bytes,
        cell: (member) => <ByteSize value={member.dirty_bytes} />,
        align: "right",
        width: 96,
        from: "sm",
      },
      {
        key: "stored",
        title: "Stored",
        value: (member) => member.stored_bytes,
        cell: (member) => <ByteSize value={member.stored_bytes} />,
        align: "right",
        width: 96,
      },
      {
        key: "version",
        title: "Version",
        value: (member) => member.version,
        cell: (member) =>
          member.version ? (
            <ThingLink kind="version" id={member.version} name={`…${member.version.slice(-8)}`} project={project} />
          ) : (
            "–"
          ),
        width: 110,
        from: "sm",
      },
      {
        key: "disk",
        title: "Disk",
        value: (member) => member.disk,
        cell: (member) => <CopyId value={member.disk} short label="disk id" />,
        width: 130,
        from: "xl",
      },
    ];
  }, [longest, project]);
  return (
    <Panel title="Members">
      <ThingsTable
        name="members"
        prefix="m-"
        rows={items}
        complete={members.data?.complete ?? false}
        error={members.error}
        onRetry={() => void members.refetch()}
        rowId={diskOf}
        columns={columns}
        sort="-pause"
        empty={
          <EmptyState title={snapshot.state === "failed" ? "It has no members" : "Its members are not known yet"}>
            {snapshot.state === "failed"
              ? "Nothing of it was published."
              : "They are listed as soon as the cut is prepared on their nodes."}
          </EmptyState>
        }
      />
    </Panel>
  );
}
