import { Text } from "@mantine/core";
import type { UseQueryResult } from "@tanstack/react-query";
import { useMemo } from "react";
import type { Deployment } from "../../../api/deployments.ts";
import type { Instance } from "../../../api/instances.ts";
import type { Loaded } from "../../../api/lists.ts";
import { useIsOperator } from "../../../api/me.ts";
import { searchOf } from "../../../api/scope.ts";
import { EmptyState } from "../../../ui/EmptyState.tsx";
import { duration } from "../../../ui/format.ts";
import { type Column, type Facet, ThingsTable } from "../../../ui/table/ThingsTable.tsx";
import { InstanceActions } from "../../instances/actions/InstanceActions.tsx";
import { operatorColumns, tenantColumns } from "../../instances/columns.tsx";
import { problemsFirst } from "../../instances/state-words.ts";
import { trackOf } from "../timeline/tracks.ts";

const readyAfter: Column<Instance> = {
  key: "took",
  title: "Ready after",
  value: (member) => trackOf(member).at.ready,
  cell: (member) => duration(trackOf(member).at.ready),
  align: "right",
  width: 110,
  from: "sm",
};

/** The columns of instances, without those that are the same for all members. */
const columnsOf = (columns: readonly Column<Instance>[]) => {
  const own = columns.filter(({ key }) => !["deployment", "project", "cpus", "memory", "runtime"].includes(key));
  return [...own.slice(0, 2), readyAfter, ...own.slice(2)];
};
const forOperators = columnsOf(operatorColumns);
const forTenants = columnsOf(tenantColumns);

const tenantFacets: readonly Facet[] = [
  { key: "state", title: "State" },
  { key: "reason", title: "Reason" },
];
const operatorFacets: readonly Facet[] = [...tenantFacets, { key: "node", title: "Node" }];
const idOf = (member: Instance) => member.id;

/** The members of a deployment as a table, those with a problem first. */
export function MembersTab({
  deployment,
  members,
}: {
  deployment: Deployment;
  members: UseQueryResult<Loaded<Instance>>;
}) {
  const operator = useIsOperator();
  const items = members.data?.items;
  const rows = useMemo(() => (items === undefined ? undefined : problemsFirst(items)), [items]);
  return (
    <ThingsTable
      name="members"
      rows={rows}
      complete={members.data?.complete ?? false}
      error={members.error}
      onRetry={() => void members.refetch()}
      rowId={idOf}
      columns={operator ? forOperators : forTenants}
      facets={operator ? operatorFacets : tenantFacets}
      link={(member) => ({
        to: "/instances/$instance",
        params: { instance: member.id },
        search: searchOf(member.project),
      })}
      bulk={(chosen, clear) => <InstanceActions instances={chosen} onDone={clear} size="compact-sm" />}
      empty={
        <EmptyState title="No members are left" cli={`muster deployment scale ${deployment.name} 4`}>
          <Text size="sm">Scale the deployment up, or delete it.</Text>
        </EmptyState>
      }
    />
  );
}
