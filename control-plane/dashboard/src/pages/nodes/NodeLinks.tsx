import { Table, Text } from "@mantine/core";
import { useNodeLinks } from "../../api/traffic.ts";
import { bytes } from "../../ui/format.ts";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import classes from "./NodeLinks.module.css";

/** The busiest are shown. */
const shownAtMost = 20;

/** Who fetches from whom: what this node exchanged with each other node lately. Nothing where it is not offered. */
export function NodeLinks({ node }: { node: string }) {
  const { data } = useNodeLinks(node);
  if (data === null || data === undefined) return null;
  const links = data
    .filter(({ fetched_bytes, served_bytes }) => fetched_bytes + served_bytes > 0)
    .sort((a, b) => b.fetched_bytes + b.served_bytes - a.fetched_bytes - a.served_bytes);
  const most = Math.max(1, ...links.map(({ fetched_bytes, served_bytes }) => Math.max(fetched_bytes, served_bytes)));
  return (
    <Panel title="Exchanged with other nodes in the last 10 minutes" flush={links.length > 0}>
      {links.length === 0 ? (
        <Text size="sm" c="dimmed">
          Nothing. Chunks travel when disks are read that are not here yet, and when versions are stored.
        </Text>
      ) : (
        <Table.ScrollContainer minWidth={320}>
          <Table layout="fixed">
            <Table.Thead>
              <Table.Tr>
                <Table.Th w="30%">Node</Table.Th>
                <Table.Th>Fetched from it</Table.Th>
                <Table.Th>Served to it</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {links.slice(0, shownAtMost).map((link) => (
                <Table.Tr key={link.node}>
                  <Table.Td>
                    <ThingLink kind="node" id={link.node} name={link.node_name} />
                  </Table.Td>
                  <Table.Td>
                    <Bar value={link.fetched_bytes} most={most} kind="fetched" />
                  </Table.Td>
                  <Table.Td>
                    <Bar value={link.served_bytes} most={most} kind="served" />
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
          {links.length > shownAtMost && (
            <Text size="xs" c="dimmed" p="sm">
              The busiest {shownAtMost} of {links.length} are shown.
            </Text>
          )}
        </Table.ScrollContainer>
      )}
    </Panel>
  );
}

function Bar({ value, most, kind }: { value: number; most: number; kind: string }) {
  return (
    <div className={classes.cell}>
      <span className={classes.value}>{bytes(value)}</span>
      <div className={classes.bar} data-kind={kind} style={{ width: `${(60 * value) / most}%` }} aria-hidden />
    </div>
  );
}
