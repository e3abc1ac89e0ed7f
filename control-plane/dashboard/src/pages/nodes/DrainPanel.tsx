import type { Drain } from "../../api/nodes.ts";
import { bytes } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { copies } from "../pool/repair-words.ts";

/** How far other nodes are with taking over what a node has. */
export function DrainPanel({ drain }: { drain: Drain }) {
  const isOver = drain.state === "drained";
  return (
    <Panel title="Drain">
      <KeyValues
        items={[
          ["State", <StateBadge key="state" state={drain.state} />],
          ["Begun", <TimeAgo key="since" time={drain.since} />],
          ["Left", copies(drain.left)],
          ["Rate", isOver ? undefined : `${bytes(drain.bytes_per_s)}/s`],
          [
            "Expected end",
            isOver ? undefined : drain.ends_at === null ? "not known yet" : <TimeAgo key="end" time={drain.ends_at} />,
          ],
        ]}
      />
    </Panel>
  );
}
