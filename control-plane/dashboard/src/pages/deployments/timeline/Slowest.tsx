import { Table, Text } from "@mantine/core";
import { duration } from "../../../ui/format.ts";
import { Panel } from "../../../ui/Panel.tsx";
import { ThingLink } from "../../../ui/ThingLink.tsx";
import classes from "./Timeline.module.css";
import { lengthAt, longestStep, slowest, type Track } from "./tracks.ts";

/** The ten members that took the longest, and on what. */
export function Slowest({ tracks, now }: { tracks: readonly Track[]; now: number }) {
  const some = slowest(tracks, 10, now);
  if (some.length === 0) return null;
  return (
    <Panel title={some.length < 10 ? "Slowest members" : "The slowest ten"}>
      <Table className={classes.numbers} withRowBorders={false}>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Member</Table.Th>
            <Table.Th ta="right">Until ready</Table.Th>
            <Table.Th>Mostly</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {some.map((track) => {
            const longest = longestStep(track, now);
            return (
              <Table.Tr key={track.member.id}>
                <Table.Td>
                  <ThingLink
                    kind="instance"
                    id={track.member.id}
                    name={track.member.name}
                    project={track.member.project}
                  />
                </Table.Td>
                <Table.Td ta="right" className="nowrap">
                  {track.at.ready === null ? (
                    <Text span inherit c="dimmed">
                      {duration(lengthAt(track, now))} so far
                    </Text>
                  ) : (
                    duration(track.at.ready)
                  )}
                </Table.Td>
                <Table.Td className="nowrap">
                  {longest.ms > 0 ? `${longest.step} ${duration(longest.ms)}` : "–"}
                </Table.Td>
              </Table.Tr>
            );
          })}
        </Table.Tbody>
      </Table>
    </Panel>
  );
}
