import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function Overview() {
  return (
    <Page title="Overview">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
