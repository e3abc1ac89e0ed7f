import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function NodeDetail() {
  return (
    <Page title="Node">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
