import { Text } from "@mantine/core";
import { useMemo } from "react";
import { type Instance, useInstances } from "../../api/instances.ts";
import { useIsOperator } from "../../api/me.ts";
import { searchOf } from "../../api/scope.ts";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { count } from "../../ui/format.ts";
import { ButtonLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { InstanceActions } from "./actions/InstanceActions.tsx";
import { operatorColumns, tenantColumns } from "./columns.tsx";
import { problemsFirst, urgency } from "./state-words.ts";

const state: Facet = {
  key: "state",
  title: "State",
  options: ["failed", "unknown", "paused", "pending", "starting", "running", "stopping", "stopped", "deleting"],
};
const deployment: Facet = { key: "deployment", title: "Deployment" };
const zone: Facet = { key: "zone", title: "Zone" };
const reason: Facet = { key: "reason", title: "Reason" };
const operatorFacets = [state, deployment, { key: "node", title: "Node" }, zone, reason];
const tenantFacets = [state, deployment, zone, reason];

const idOf = (instance: Instance) => instance.id;

/** All instances, those with a problem first. */
export default function InstanceList() {
  const operator = useIsOperator();
  const instances = useInstances();
  const items = instances.data?.items;
  const rows = useMemo(() => (items === undefined ? undefined : problemsFirst(items)), [items]);
  const problems = useMemo(() => items?.filter((instance) => urgency(instance) < 5).length ?? 0, [items]);
  return (
    <Page title="Instances" subtitle={subtitle(items?.length, instances.data?.complete === true, problems)}>
      <ThingsTable
        name="instances"
        rows={rows}
        complete={instances.data?.complete ?? false}
        error={instances.error}
        onRetry={() => void instances.refetch()}
        rowId={idOf}
        columns={operator ? operatorColumns : tenantColumns}
        facets={operator ? operatorFacets : tenantFacets}
        link={(instance) => ({
          to: "/instances/$instance",
          params: { instance: instance.id },
          search: searchOf(instance.project),
        })}
        bulk={(chosen, clear) => <InstanceActions instances={chosen} onDone={clear} size="compact-sm" />}
        empty={
          <EmptyState
            title="There are no instances yet"
            action={<ButtonLink to="/deployments/new">Deploy instances</ButtonLink>}
            cli="muster deploy web --image IMAGE --count 4"
          >
            <Text size="sm">
              Instances are the members of deployments. Deploy some from an image, and they are listed here.
            </Text>
          </EmptyState>
        }
      />
    </Page>
  );
}

function subtitle(total: number | undefined, complete: boolean, problems: number): string {
  if (total === undefined || total === 0 || (problems === 0 && !complete))
    return "The virtual machines of all deployments";
  if (problems === 0) return "None has a problem.";
  return `${count(problems)} ${problems === 1 ? "needs" : "need"} a look; they come first.`;
}
