import { Text } from "@mantine/core";
import type { Node } from "../../api/nodes.ts";
import { count } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { TextLink } from "../../ui/links.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { repairFacts } from "../pool/repair-words.ts";

/** How far a node is with sending copies that other nodes lack. */
export function RepairPanel({
  repair,
  endsAt,
}: {
  repair: NonNullable<Node["repair"]>;
  endsAt?: string | null | undefined;
}) {
  return (
    <Panel
      title="Repair"
      aside={
        <TextLink to="/pools/default" fz="xs">
          Repair of all nodes
        </TextLink>
      }
    >
      <Text size="sm" c="dimmed" mb="sm">
        The copies that other nodes lack and that this node sends them.
      </Text>
      <KeyValues
        items={[
          ...repairFacts(repair, "its agent began", endsAt),
          ["Expected end", endsAt ? <TimeAgo key="end" time={endsAt} /> : undefined],
          [
            "Nodes that did not answer",
            repair.silent_nodes === 0 ? "none" : `${count(repair.silent_nodes)}; what they lack is not known`,
          ],
          ["Membership epoch", count(repair.membership_epoch)],
        ]}
      />
    </Panel>
  );
}
