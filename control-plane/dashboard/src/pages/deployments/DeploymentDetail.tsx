import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function DeploymentDetail() {
  return (
    <Page title="Deployment">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
