import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function NodeList() {
  return (
    <Page title="Nodes">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
