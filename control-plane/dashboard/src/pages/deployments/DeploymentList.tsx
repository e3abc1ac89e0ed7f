import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function DeploymentList() {
  return (
    <Page title="Deployments">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
