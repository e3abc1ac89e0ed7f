import { Table } from "@mantine/core";
import { count, duration } from "../../../ui/format.ts";
import { Panel } from "../../../ui/Panel.tsx";
import classes from "./Timeline.module.css";
import { percentile, type Reached, steps, stepTitles } from "./tracks.ts";

/** How long it took from the request to each step. */
export function Percentiles({ reached }: { reached: Reached }) {
  return (
    <Panel title="Time since the request">
      <Table className={classes.numbers} withRowBorders={false}>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Step</Table.Th>
            <Table.Th ta="right">Members</Table.Th>
            <Table.Th ta="right">p50</Table.Th>
            <Table.Th ta="right">p90</Table.Th>
            <Table.Th ta="right">p99</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {steps.map((step) => (
            <Table.Tr key={step}>
              <Table.Td className="nowrap">{stepTitles[step]}</Table.Td>
              <Table.Td ta="right">{count(reached[step].length)}</Table.Td>
              {[50, 90, 99].map((percent) => (
                <Table.Td key={percent} ta="right" className="nowrap">
                  {duration(percentile(reached[step], percent))}
                </Table.Td>
              ))}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Panel>
  );
}
