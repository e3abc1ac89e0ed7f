import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function ProjectList() {
  return (
    <Page title="Projects">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
