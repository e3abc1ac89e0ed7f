import { Text } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { type Deployment, useDeployments } from "../../api/deployments.ts";
import { searchOf } from "../../api/scope.ts";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { count } from "../../ui/format.ts";
import { ButtonLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { deploymentColumns } from "./columns.tsx";
import { DeploymentsBulk } from "./DeploymentsBulk.tsx";

const facets: readonly Facet[] = [
  { key: "state", title: "State", options: ["deploying", "ready", "degraded", "stopped", "deleting"] },
  { key: "protection", title: "Protection" },
];

const idOf = (deployment: Deployment) => deployment.id;

/** All deployments: which are well, and which need somebody. */
export default function DeploymentList() {
  const deployments = useDeployments();
  return (
    <Page
      title="Deployments"
      subtitle={
        deployments.data?.items.length ? summary(deployments.data.items) : "Instances that were started together"
      }
      actions={
        <ButtonLink to="/deployments/new" size="xs" leftSection={<IconPlus size={15} />}>
          New deployment
        </ButtonLink>
      }
    >
      <ThingsTable
        name="deployments"
        rows={deployments.data?.items}
        complete={deployments.data?.complete ?? false}
        error={deployments.error}
        onRetry={() => void deployments.refetch()}
        rowId={idOf}
        columns={deploymentColumns}
        facets={facets}
        sort="-created"
        link={(deployment) => ({
          to: "/deployments/$deployment",
          params: { deployment: deployment.id },
          search: searchOf(deployment.project),
        })}
        bulk={(chosen, clear) => <DeploymentsBulk deployments={chosen} onDone={clear} />}
        empty={
          <EmptyState
            title="Nothing is deployed yet"
            action={<ButtonLink to="/deployments/new">Deploy instances</ButtonLink>}
            cli="muster deploy web --image IMAGE --count 4"
          >
            <Text size="sm">
              A deployment is a group of instances that start together, from one image or from a snapshot.
            </Text>
          </EmptyState>
        }
      />
    </Page>
  );
}

/** What one wants to know first: how many members are ready, and which deployments are degraded. */
function summary(deployments: readonly Deployment[]): string {
  const sum = (of: (deployment: Deployment) => number) => deployments.reduce((total, each) => total + of(each), 0);
  const degraded = deployments.filter(({ state }) => state === "degraded").length;
  const failed = sum(({ counts }) => counts.failed ?? 0);
  const problems = [
    degraded > 0 ? `${count(degraded)} degraded` : "",
    failed > 0 ? `${count(failed)} failed ${failed === 1 ? "member" : "members"}` : "",
  ].filter(Boolean);
  const ready = `${count(sum((each) => each.ready))} of ${count(sum((each) => each.count))} members are ready`;
  return problems.length === 0 ? `${ready}.` : `${ready}; ${problems.join(", ")}.`;
}
