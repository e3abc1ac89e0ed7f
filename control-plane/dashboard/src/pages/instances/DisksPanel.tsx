import { Table, Text } from "@mantine/core";
import { Fragment } from "react";
import type { Instance } from "../../api/instances.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { CopyId } from "../../ui/CopyId.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { unsavedBytes } from "./columns.tsx";
import classes from "./InstanceDetail.module.css";

/** The disks: what is saved of each, what is not, and for operators where its file is. */
export function DisksPanel({ instance }: { instance: Instance }) {
  const { disks, project } = instance;
  return (
    <Panel title={disks.length === 1 ? "Disk" : "Disks"} flush>
      <Table.ScrollContainer minWidth={440}>
        <Table fz="sm" horizontalSpacing={14}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Name</Table.Th>
              <Table.Th ta="right">Size</Table.Th>
              <Table.Th ta="right">Unsaved</Table.Th>
              <Table.Th>Saved</Table.Th>
              <Table.Th>Version</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {disks.map((disk) => (
              <Fragment key={disk.id}>
                <Table.Tr className={disk.path === undefined ? undefined : classes.above}>
                  <Table.Td>{disk.name}</Table.Td>
                  <Table.Td ta="right">
                    <ByteSize value={disk.size_bytes} />
                  </Table.Td>
                  <Table.Td ta="right">
                    <ByteSize value={disk.unsaved_bytes} />
                  </Table.Td>
                  <Table.Td>{disk.saved_at === null ? "never" : <TimeAgo time={disk.saved_at} />}</Table.Td>
                  <Table.Td className="nowrap">
                    <ThingLink kind="version" id={disk.version} name={`…${disk.version.slice(-8)}`} project={project} />
                  </Table.Td>
                </Table.Tr>
                {disk.path !== undefined && (
                  <Table.Tr>
                    <Table.Td colSpan={5} pt={0} c="dimmed">
                      <CopyId value={disk.path} label="path of its file on the node" />
                    </Table.Td>
                  </Table.Tr>
                )}
              </Fragment>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      {unsavedBytes(instance) > 0 && (
        <Text size="xs" c="dimmed" px={14} pb={12} pt={4}>
          Unsaved bytes are on this node only. They survive a crash of the node, but not its loss: take a snapshot to
          save them.
        </Text>
      )}
    </Panel>
  );
}
