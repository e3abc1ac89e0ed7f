import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function SnapshotDetail() {
  return (
    <Page title="Snapshot">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
