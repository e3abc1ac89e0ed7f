import { SimpleGrid, Stack } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useIsOperator, useMe } from "../../api/me.ts";
import { usePool } from "../../api/pools.ts";
import { allProjects, currentScope } from "../../api/scope.ts";
import { useSummary } from "../../api/summary.ts";
import { ErrorBox } from "../../ui/ErrorBox.tsx";
import { Facts } from "../../ui/Facts.tsx";
import { bytes, count } from "../../ui/format.ts";
import { ButtonLink, TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { Meter } from "../nodes/Meter.tsx";
import { FirstSteps } from "./FirstSteps.tsx";
import { firstSteps } from "./first-steps.ts";
import { JobsInFlight } from "./JobsInFlight.tsx";
import classes from "./Overview.module.css";
import { Problems } from "./Problems.tsx";
import { shownProblems } from "./problems.ts";
import { StateCounts } from "./StateCounts.tsx";
import { TrafficPanels } from "./TrafficPanels.tsx";

/** What one wants to know first: what is wrong, what goes on, how much there is. Its size does not grow. */
export default function Overview() {
  const me = useMe();
  const operator = useIsOperator();
  const { data: summary, error, refetch } = useSummary();
  const { data: shownPool } = usePool(operator);
  if (summary === undefined) {
    return <WaitingPage title="Overview" error={error} onRetry={() => void refetch()} />;
  }
  const steps = firstSteps(summary, operator);
  const scope = currentScope();
  const { capacity, pool } = summary;
  const hasNodes = operator && Object.keys(summary.nodes).length > 0;
  return (
    <Page
      title="Overview"
      subtitle={
        me.project !== null
          ? `Project ${me.project}`
          : scope === allProjects
            ? "The whole cluster, all projects"
            : `Project ${scope}, on the nodes of the whole cluster`
      }
      // While there is nothing to deploy, the first steps lead to it.
      actions={
        steps.length === 0 && (
          <ButtonLink size="xs" leftSection={<IconPlus size={15} />} to="/deployments/new">
            New deployment
          </ButtonLink>
        )
      }
    >
      {error !== null && <ErrorBox error={error} title="What you see may be out of date" />}
      {steps.length > 0 && <FirstSteps steps={steps} />}
      <div className={classes.now}>
        <Problems problems={shownProblems(summary, operator, shownPool, Date.now())} />
        <JobsInFlight summary={summary} />
      </div>
      <div className={classes.counts}>
        <StateCounts title="Deployments" to="/deployments" states={summary.deployments} />
        <StateCounts title="Instances" to="/instances" states={summary.instances} />
        <StateCounts title="Images" to="/images" states={summary.images} />
        <StateCounts title="Snapshots" to="/snapshots" states={summary.snapshots} />
        {operator && <StateCounts title="Nodes" to="/nodes" states={summary.nodes} />}
      </div>
      {hasNodes && (capacity || pool) && (
        <SimpleGrid cols={{ base: 1, md: 2 }} spacing="md">
          {capacity && (
            <Panel title="Capacity">
              <Stack gap="md">
                <Meter
                  label="Processors"
                  used={capacity.cpus_used}
                  total={capacity.cpus}
                  format={count}
                  warns={false}
                />
                <Meter label="Memory" used={capacity.memory_used_bytes} total={capacity.memory_bytes} format={bytes} />
              </Stack>
            </Panel>
          )}
          {pool && (
            <Panel
              title="Pool"
              aside={
                <TextLink to="/pools/default" fz="xs">
                  Sweep and repair
                </TextLink>
              }
            >
              <Stack gap="md">
                <Meter label="Stored objects" used={pool.used_bytes} total={pool.limit_bytes} format={bytes} />
                <Facts
                  items={[
                    ["Free on the nodes' disks", bytes(pool.free_bytes)],
                    ["Cache of clean chunks", bytes(pool.cache_bytes)],
                    ["Explained by nothing", summary.unexplained_bytes ? bytes(summary.unexplained_bytes) : undefined],
                  ]}
                />
              </Stack>
            </Panel>
          )}
        </SimpleGrid>
      )}
      {hasNodes && <TrafficPanels />}
    </Page>
  );
}
