import { EmptyState } from "../../ui/EmptyState.tsx";
import { Page } from "../../ui/Page.tsx";

export default function ChunkMap() {
  return (
    <Page title="Chunk map">
      <EmptyState title="This page is not built yet" />
    </Page>
  );
}
