import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function SnapshotList() {
  return (
    <Page title="Snapshots">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
