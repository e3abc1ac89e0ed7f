import { Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type Image, imageFreed, useDeleteImage } from "../../api/images.ts";
import { type DeleteProps, DeleteThings } from "../../ui/DeleteThings.tsx";
import { bytes, count } from "../../ui/format.ts";

/** What is freed is told for no more images than this: each takes the controller some time. */
const askedAtMost = 10;

/** Deletes images after it has told what comes back. */
export function DeleteImages(props: DeleteProps<Image>) {
  const { mutateAsync } = useDeleteImage();
  const { things } = props;
  const versions = things.reduce((sum, image) => sum + image.version_count, 0);
  const one = things.length === 1;
  return (
    <DeleteThings {...props} kind="image" remove={mutateAsync}>
      {count(versions)} {versions === 1 ? "version goes" : "versions go"} with{" "}
      {one ? "it, and its name is free" : "them, and their names are free"} at once. Instances and snapshots that began
      with {one ? "it" : "them"} keep all their bytes.
      {things.length <= askedAtMost && <Freed images={things} />}
    </DeleteThings>
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
