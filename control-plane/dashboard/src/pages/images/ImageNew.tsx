import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function ImageNew() {
  return (
    <Page title="New image">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
