import { Table, Text } from "@mantine/core";
import type { LostVersion } from "../../api/pools.ts";
import { count } from "../../ui/format.ts";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";

/** The API names so many at most. */
const most = 20;

/** The versions that lost the last copy of an object, with what builds on them. */
export function LostVersions({ lost }: { lost: readonly LostVersion[] }) {
  if (lost.length === 0) return null;
  return (
    <Panel title="Versions that lost the last copy of an object" flush>
      <Text size="sm" c="dimmed" p="sm" px={14}>
        What needs these objects cannot be read. Import the same content again: it is found by its name. Otherwise
        deploy anew from another version.
      </Text>
      <Table.ScrollContainer minWidth={560}>
        <Table fz="sm">
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Version</Table.Th>
              <Table.Th>Project</Table.Th>
              <Table.Th ta="right">Lost objects</Table.Th>
              <Table.Th>Since</Table.Th>
              <Table.Th>Builds on it</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {lost.map((each) => (
              <Table.Tr key={each.version}>
                <Table.Td>
                  <ThingLink kind="version" id={each.version} name={each.name} project={each.project} />
                </Table.Td>
                <Table.Td>{each.project}</Table.Td>
                <Table.Td ta="right">{count(each.objects)}</Table.Td>
                <Table.Td>
                  <TimeAgo time={each.since} />
                </Table.Td>
                <Table.Td>{[...each.deployments, ...each.instances].join(", ") || "nothing"}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      {lost.length === most && (
        <Text size="xs" c="dimmed" p="sm">
          The first {most} are shown.
        </Text>
      )}
    </Panel>
  );
}
