import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function VersionDetail() {
  return (
    <Page title="Version">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
