import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function InstanceList() {
  return (
    <Page title="Instances">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
