import { Text } from "@mantine/core";
import { IconUpload } from "@tabler/icons-react";
import { type Image, useImages } from "../../api/images.ts";
import { searchOf } from "../../api/scope.ts";
import { ByteSize } from "../../ui/ByteSize.tsx";
import { DeleteChosen } from "../../ui/DeleteThings.tsx";
import { EmptyState } from "../../ui/EmptyState.tsx";
import { bytes } from "../../ui/format.ts";
import { ButtonLink } from "../../ui/links.tsx";
import { Page } from "../../ui/Page.tsx";
import { StateBadge } from "../../ui/StateBadge.tsx";
import { ThingLink } from "../../ui/ThingLink.tsx";
import { TimeAgo } from "../../ui/TimeAgo.tsx";
import { type Column, type Facet, ThingsTable } from "../../ui/table/ThingsTable.tsx";
import { DeleteImages } from "./DeleteImages.tsx";
import { bootWords, firmwareText, labelWords } from "./words.ts";

const columns: readonly Column<Image>[] = [
  {
    key: "state",
    title: "State",
    value: (image) => image.state,
    cell: (image) => <StateBadge state={image.state} reason={image.reason} />,
    width: 100,
  },
  {
    key: "name",
    title: "Image",
    value: (image) => image.name,
    cell: (image) => <ThingLink kind="image" id={image.id} name={image.name} project={image.project} />,
  },
  {
    key: "newest",
    title: "Newest",
    value: (image) => image.newest_number,
    cell: (image) =>
      image.newest_version === null ? (
        "–"
      ) : (
        <ThingLink kind="version" id={image.newest_version} name={`@${image.newest_number}`} project={image.project} />
      ),
    align: "right",
    width: 90,
    from: "sm",
  },
  {
    key: "versions",
    title: "Versions",
    value: (image) => image.version_count,
    align: "right",
    width: 90,
    from: "sm",
  },
  {
    key: "size",
    title: "Size",
    value: (image) => image.size_bytes,
    cell: (image) => <ByteSize value={image.size_bytes} />,
    align: "right",
    width: 90,
  },
  { key: "boot", title: "Boots with", value: (image) => bootWords(image.boot), width: 110, from: "md" },
  { key: "firmware", title: "Firmware", value: (image) => firmwareText(image.firmware), width: 110, hidden: true },
  { key: "os", title: "System", value: (image) => image.os, width: 140, from: "xl" },
  {
    key: "chunk",
    title: "Chunk",
    value: (image) => image.chunk_bytes,
    cell: (image) => bytes(image.chunk_bytes),
    align: "right",
    width: 90,
    hidden: true,
  },
  {
    key: "labels",
    title: "Labels",
    value: (image) => labelWords(image.labels),
    width: 180,
    from: "xl",
  },
  { key: "project", title: "Project", value: (image) => image.project, width: 120, from: "lg" },
  {
    key: "updated",
    title: "Changed",
    value: (image) => image.updated_at,
    cell: (image) => <TimeAgo time={image.updated_at} />,
    width: 100,
    from: "md",
  },
  {
    key: "created",
    title: "Made",
    value: (image) => image.created_at,
    cell: (image) => <TimeAgo time={image.created_at} />,
    width: 100,
    hidden: true,
  },
  { key: "id", title: "Id", value: (image) => image.id, hidden: true, width: 300 },
];

const facets: readonly Facet[] = [{ key: "state", title: "State", options: ["ready", "empty"] }];

const idOf = (image: Image) => image.id;

/** What instances can be deployed from. */
export default function ImageList() {
  const images = useImages();
  return (
    <Page
      title="Images"
      subtitle="Disks with numbered versions, from which instances are deployed. Equal bytes are stored once."
      actions={
        <ButtonLink to="/images/new" size="xs" leftSection={<IconUpload size={15} />}>
          New image
        </ButtonLink>
      }
    >
      <ThingsTable
        name="images"
        rows={images.data?.items}
        complete={images.data?.complete ?? false}
        error={images.error}
        onRetry={() => void images.refetch()}
        rowId={idOf}
        columns={columns}
        facets={facets}
        sort="name"
        link={(image) => ({ to: "/images/$image", params: { image: image.id }, search: searchOf(image.project) })}
        bulk={(chosen, clear) => <DeleteChosen things={chosen} onDone={clear} dialog={DeleteImages} />}
        empty={
          <EmptyState
            title="There is no image yet"
            action={<ButtonLink to="/images/new">Upload an image</ButtonLink>}
            cli="muster image import debian debian-12-generic-amd64.qcow2"
          >
            <Text size="sm">
              Upload a disk as a raw or qcow2 file, such as a cloud image of a distribution. Then deploy any number of
              instances from it.
            </Text>
          </EmptyState>
        }
      />
    </Page>
  );
}
