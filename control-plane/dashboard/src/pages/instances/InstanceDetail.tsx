import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function InstanceDetail() {
  return (
    <Page title="Instance">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
