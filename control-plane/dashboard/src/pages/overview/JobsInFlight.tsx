import { Skeleton, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { api, body } from "../../api/client.ts";
import { isUnderWay, type Operation } from "../../api/operations.ts";
import { currentScope } from "../../api/scope.ts";
import type { Summary } from "../../api/summary.ts";
import { count } from "../../ui/format.ts";
import { TextLink } from "../../ui/links.tsx";
import { OperationProgress } from "../../ui/OperationProgress.tsx";
import { titleOf } from "../../ui/operation-title.ts";
import { Panel } from "../../ui/Panel.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import classes from "./JobsInFlight.module.css";

/** As many are shown; the list of operations has them all. */
const shownAtMost = 8;
const underWay = ["pending", "running", "cancelling"] as const;

/** Some of the operations under way, for controllers whose summary does not have them. */
function useSomeUnderWay(enabled: boolean) {
  return useQuery({
    queryKey: ["operations", "list", currentScope(), { underWay: 20 }] as const,
    queryFn: ({ signal }) =>
      body(api.GET("/v1/operations", { params: { query: { limit: 20, state: [...underWay] } }, signal })),
    enabled,
  });
}

/** What the cluster works on now, with bars that move. */
export function JobsInFlight({ summary }: { summary: Summary }) {
  const total = underWay.reduce((sum, state) => sum + (summary.operations[state] ?? 0), 0);
  const told = summary.operations_running;
  const asked = useSomeUnderWay(told === undefined && total > 0);
  const jobs: Operation[] | undefined = (total === 0 ? [] : (told ?? asked.data?.items))?.filter(isUnderWay);
  return (
    <Panel
      title="Under way"
      flush
      aside={
        <TextLink to="/operations" search={{ state: [...underWay] } as never} fz="xs">
          {total > shownAtMost ? `All ${count(total)}` : "All operations"}
        </TextLink>
      }
    >
      {jobs === undefined ? (
        <Stack p="sm" gap={8} aria-busy aria-label="Loading">
          <Skeleton height={26} />
          <Skeleton height={26} />
        </Stack>
      ) : jobs.length === 0 ? (
        <Text size="sm" c="dimmed" p="sm" px={14}>
          No operation is under way.
        </Text>
      ) : (
        <ul className={classes.list}>
          {jobs.slice(0, shownAtMost).map((operation) => (
            <li key={operation.id} className={classes.job}>
              <Text size="sm" truncate className={classes.title}>
                <ThingLink kind="operation" id={operation.id} name={titleOf(operation)} project={operation.project} />
              </Text>
              <div className={classes.bar}>
                <OperationProgress operation={operation} compact />
              </div>
              <Text size="xs" c="dimmed" className={classes.since}>
                {operation.requested_by}, <TimeAgo time={operation.created_at} />
              </Text>
            </li>
          ))}
        </ul>
      )}
    </Panel>
  );
}
