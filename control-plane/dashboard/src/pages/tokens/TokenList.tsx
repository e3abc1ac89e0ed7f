import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function TokenList() {
  return (
    <Page title="Tokens">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
