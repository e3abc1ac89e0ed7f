import { Checkbox, Select, SimpleGrid, Stack, Text, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useDeployments } from "../../../api/deployments.ts";
import { useImages } from "../../../api/images.ts";
import { useSnapshots } from "../../../api/snapshots.ts";
import { imageVersionsQuery } from "../../../api/versions.ts";
import { bytes, count } from "../../../ui/format.ts";
import { TextLink } from "../../../ui/links.tsx";
import { SearchSelect } from "../../../ui/SearchSelect.tsx";
import { sizesOf } from "./again.ts";
import { Choice } from "./Choice.tsx";
import type { FieldsProps } from "./Fields.tsx";
import { type SourceKind, sourceKindOf } from "./form.ts";

const kinds = [
  { value: "image", label: "Image" },
  { value: "snapshot", label: "Snapshot (fork)" },
  { value: "version", label: "Version" },
];

/** What the disks of the members start as. */
export function SourceFields(props: FieldsProps) {
  const { form, change } = props;
  const filled = sourceKindOf(form);
  const nothing = form.image === "" && form.snapshot === "" && form.version === "";
  // While nothing is filled in, the choice lives here alone.
  const [chosen, setChosen] = useState<SourceKind>(filled);
  const kind = nothing ? chosen : filled;
  return (
    <Stack gap="sm">
      <Choice
        label="Start from"
        value={kind}
        data={kinds}
        onChange={(value) => {
          setChosen(value as SourceKind);
          change({ image: "", number: "", snapshot: "", missing: "", version: "" });
        }}
      />
      {kind === "image" && <ImageFields {...props} />}
      {kind === "snapshot" && <SnapshotFields {...props} />}
      {kind === "version" && <VersionField {...props} />}
    </Stack>
  );
}

/** A value that the list does not have (yet) is offered too, so that it is seen. */
const withValue = (data: { value: string; label: string }[], value: string) =>
  value === "" || data.some((each) => each.value === value) ? data : [{ value, label: value }, ...data];

function ImageFields({ form, change, errors, project }: FieldsProps) {
  const images = useImages();
  const here = (images.data?.items ?? []).filter((image) => project === undefined || image.project === project);
  const usable = here.filter(({ version_count }) => version_count > 0);
  const image = here.find(({ name, id }) => name === form.image || id === form.image);
  const versions = useQuery({
    ...imageVersionsQuery(image?.id ?? ""),
    enabled: image !== undefined,
  });
  const numbers = (versions.data?.items ?? [])
    .flatMap(({ number, created_at }) => (number === null ? [] : [{ number, created_at }]))
    .sort((a, b) => b.number - a.number);
  return (
    <>
      <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm">
        <SearchSelect
          label="Image"
          placeholder={images.isPending ? "Loading …" : "Choose an image"}
          data={withValue(
            usable.map(({ name, size_bytes }) => ({ value: name, label: `${name} (${bytes(size_bytes)})` })),
            form.image,
          )}
          value={form.image || null}
          onChange={(value) => change({ image: value ?? "", number: "" })}
          error={errors.image}
          isLoaded={images.data !== undefined}
          nothingFoundMessage="No image has this name"
          data-field="image"
          required
        />
        <Select
          label="Version"
          data={withValue(
            [
              { value: "newest", label: image?.newest_number ? `newest (${image.newest_number})` : "newest" },
              ...numbers.map(({ number, created_at }) => ({
                value: String(number),
                label: `${number}, of ${created_at.slice(0, 10)}`,
              })),
            ],
            form.number,
          )}
          value={form.number || "newest"}
          onChange={(value) => change({ number: value === "newest" || value === null ? "" : value })}
          error={errors.number}
          allowDeselect={false}
          data-field="number"
          disabled={form.image === ""}
        />
      </SimpleGrid>
      {images.data?.complete && usable.length === 0 && (
        <Text size="sm">
          There is no image with content yet. <TextLink to="/images/new">Add one first</TextLink>.
        </Text>
      )}
    </>
  );
}

function SnapshotFields({ form, change, errors, project }: FieldsProps) {
  const snapshots = useSnapshots({ state: ["ready"] });
  const deployments = useDeployments();
  const here = (snapshots.data?.items ?? []).filter((each) => project === undefined || each.project === project);
  const snapshot = here.find(({ name, id }) => name === form.snapshot || id === form.snapshot);
  return (
    <>
      <SearchSelect
        label="Snapshot"
        placeholder={snapshots.isPending ? "Loading …" : "Choose a snapshot"}
        description={
          snapshot === undefined
            ? undefined
            : `Starts ${count(snapshot.members - snapshot.missing)} members, each from the disk of one member of the snapshot, with new names and addresses.`
        }
        data={withValue(
          here
            .map(({ name, members, deployment_name }) => ({
              value: name,
              label: `${name} (${count(members)} ${members === 1 ? "disk" : "disks"}${deployment_name ? ` of ${deployment_name}` : ""})`,
            }))
            .reverse(),
          form.snapshot,
        )}
        value={form.snapshot || null}
        onChange={(value) => {
          const chosen = here.find(({ name }) => name === value);
          const origin = deployments.data?.items.find(({ id }) => id === chosen?.deployment);
          change({ snapshot: value ?? "", missing: "", ...sizesOf(origin) });
        }}
        error={errors.snapshot}
        isLoaded={snapshots.data !== undefined}
        nothingFoundMessage="No snapshot that is ready has this name"
        data-field="snapshot"
        required
      />
      {(snapshot?.missing ?? 0) > 0 && (
        <Checkbox
          label={`Start without the ${count(snapshot?.missing)} whose versions were deleted`}
          checked={form.missing !== ""}
          onChange={(event) => change({ missing: event.currentTarget.checked ? "yes" : "" })}
        />
      )}
      {snapshots.data?.complete && here.length === 0 && (
        <Text size="sm">
          There is no snapshot yet. Open a deployment and take one, or <TextLink to="/snapshots">see all</TextLink>.
        </Text>
      )}
    </>
  );
}

function VersionField({ form, change, errors }: FieldsProps) {
  return (
    <TextInput
      label="Id of a version"
      description="Any state of any disk: of an image, or of one member in a snapshot. Its page has the id."
      value={form.version}
      onChange={(event) => change({ version: event.currentTarget.value })}
      error={errors.version}
      autoComplete="off"
      spellCheck={false}
      data-field="version"
      required
    />
  );
}
