import { Text } from "@mantine/core";
import { isUnderWay, type Operation, useOperations } from "../../api/operations.ts";
import { searchOf } from "../../api/scope.ts";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { ButtonLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { CancelMany } from "./CancelMany.tsx";
import { operationColumns } from "./columns.tsx";

const facets: readonly Facet[] = [
  { key: "state", title: "State", options: ["pending", "running", "cancelling", "succeeded", "failed", "cancelled"] },
  { key: "kind", title: "Kind" },
];

const idOf = (operation: Operation) => operation.id;

/** The log of all slow work: what runs now, what ran, who asked for it. */
export default function OperationList() {
  const operations = useOperations();
  const running = operations.data?.items.filter(isUnderWay).length ?? 0;
  return (
    <Page
      title="Operations"
      subtitle={
        operations.data === undefined
          ? "The log of slow work"
          : `${running === 0 ? "Nothing is" : running === 1 ? "1 operation is" : `${running} operations are`} under way. The log is kept for 30 days.`
      }
    >
      <ThingsTable
        name="operations"
        rows={operations.data?.items}
        complete={operations.data?.complete ?? false}
        error={operations.error}
        onRetry={() => void operations.refetch()}
        rowId={idOf}
        columns={operationColumns}
        facets={facets}
        sort="-created"
        link={(operation) => ({
          to: "/operations/$operation",
          params: { operation: operation.id },
          search: searchOf(operation.project),
        })}
        bulk={(chosen, clear) => <CancelMany operations={chosen} onDone={clear} />}
        empty={
          <EmptyState
            title="Nothing has been done yet"
            action={<ButtonLink to="/deployments/new">Deploy instances</ButtonLink>}
            cli="muster deploy web --image IMAGE --count 4"
          >
            <Text size="sm">Everything that takes time leaves a line here: deployments, snapshots, deletions.</Text>
          </EmptyState>
        }
      />
    </Page>
  );
}
