import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function EventList() {
  return (
    <Page title="Events">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
