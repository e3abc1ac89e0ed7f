import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function ImageList() {
  return (
    <Page title="Images">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
