import { List, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type Image, imageFreed, useDeleteImage } from "../../api/images.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { bytes, count } from "../../ui/format.ts";
import { toastDone } from "../../ui/toast.tsx";

interface Props {
  images: readonly Image[];
  opened: boolean;
  onClose: () => void;
  onDone: () => void;
}

/** What is freed is told for no more images than this: each takes the controller some time. */
const askedAtMost = 10;

/** Deletes images after it has told what comes back. */
export function DeleteImages({ images, opened, onClose, onDone }: Props) {
  const remove = useDeleteImage();
  const versions = images.reduce((sum, image) => sum + image.version_count, 0);
  const [only] = images;
  const single = images.length === 1 ? only : undefined;
  return (
    <ConfirmDialog
      opened={opened}
      onClose={onClose}
      title={single === undefined ? `Delete ${count(images.length)} images?` : `Delete image ${single.name}?`}
      confirm="Delete"
      danger
      onConfirm={async () => {
        for (const image of images) await remove.mutateAsync(image);
        toastDone(single === undefined ? `${images.length} images are deleted` : `Image ${single.name} is deleted`);
        onDone();
      }}
    >
      <Text size="sm">
        {count(versions)} {versions === 1 ? "version goes" : "versions go"} with{" "}
        {images.length === 1 ? "it, and its name is free" : "them, and their names are free"} at once. Instances and
        snapshots that began with {images.length === 1 ? "it" : "them"} keep all their bytes.
      </Text>
      {single === undefined && (
        <List size="sm" mt="xs">
          {images.slice(0, 10).map((image) => (
            <List.Item key={image.id}>{image.name}</List.Item>
          ))}
          {images.length > 10 && <List.Item>and {images.length - 10} more</List.Item>}
        </List>
      )}
      {images.length <= askedAtMost && <Freed images={images} />}
    </ConfirmDialog>
  );
}

/** What comes back, by a dry run. */
function Freed({ images }: { images: readonly Image[] }) {
  const { data, isError } = useQuery({
    queryKey: ["freed", images.map(({ id }) => id).join()] as const,
    queryFn: async ({ signal }) => Promise.all(images.map((image) => imageFreed(image, signal))),
    staleTime: 0,
    gcTime: 0,
  });
  const known = data?.map((freed) => freed.bytes);
  const words =
    known === undefined
      ? isError
        ? "What is freed cannot be told now."
        : "Finding out what is freed …"
      : known.some((value) => value === null)
        ? "The controller could not find out in time how much is freed."
        : `${bytes(known.reduce<number>((sum, value) => sum + (value ?? 0), 0))} are used by nothing else and can be freed.`;
  return (
    <Text size="sm" mt="xs" aria-live="polite">
      {words}
    </Text>
  );
}
