import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function DeploymentNew() {
  return (
    <Page title="New deployment">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
