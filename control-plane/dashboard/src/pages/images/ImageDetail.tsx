import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function ImageDetail() {
  return (
    <Page title="Image">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
