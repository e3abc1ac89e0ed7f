import { NativeSelect } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useParams } from "@tanstack/react-router";
import { useImage } from "../../api/images.ts";
import { searchOf } from "../../api/scope.ts";
import { imageVersionsQuery } from "../../api/versions.ts";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { TextLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { useSearchState } from "../../ui/search-state.ts";
import { WaitingPage } from "../../ui/WaitingPage.tsx";
import { ChunkPanel } from "./ChunkPanel.tsx";

/** The chunk map of a version of an image, the newest unless another is chosen. */
export default function ChunkMap() {
  const { image: id } = useParams({ from: "/framed/images/$image/chunks" });
  const { data: image, error, refetch } = useImage(id);
  const versions = useQuery(imageVersionsQuery(id));
  const [search, setSearch] = useSearchState({ number: "" });
  if (image === undefined || versions.data === undefined) {
    return (
      <WaitingPage
        title="Chunk map"
        error={error ?? versions.error}
        onRetry={() => {
          void refetch();
          void versions.refetch();
        }}
      />
    );
  }
  const list = versions.data.items;
  const chosen = list.find((version) => String(version.number) === search.number) ?? list.at(-1);
  return (
    <Page
      title={chosen === undefined ? `Chunk map of ${image.name}` : `Chunk map of ${chosen.name}`}
      subtitle="Where the disk has data, what of it other versions have as well, and what a boot reads."
      crumbs={[
        <TextLink key="images" to="/images">
          Images
        </TextLink>,
        <TextLink key="image" to="/images/$image" params={{ image: id }} search={searchOf(image.project)}>
          {image.name}
        </TextLink>,
      ]}
      actions={
        list.length > 1 && (
          <NativeSelect
            size="xs"
            aria-label="Version"
            value={String(chosen?.number ?? "")}
            onChange={(event) => setSearch({ number: event.currentTarget.value })}
            data={list.map((version) => ({ value: String(version.number), label: version.name })).reverse()}
          />
        )
      }
    >
      {chosen === undefined ? (
        <EmptyState title="The image is empty">Upload content first; then its map is here.</EmptyState>
      ) : (
        <ChunkPanel key={chosen.id} version={chosen} />
      )}
    </Page>
  );
}
