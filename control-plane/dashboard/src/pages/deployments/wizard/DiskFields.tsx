import { ActionIcon, Autocomplete, Button, Group, Input, SimpleGrid, Stack, Text, TextInput } from "@mantine/core";
import { IconPlus, IconX } from "@tabler/icons-react";
import { useImages } from "../../../api/images.ts";
import { sizeOf, sizeText } from "../../../ui/size.ts";
import { anotherDisk, diskOf, diskText, type FurtherDisk, mostDisks } from "./disks.ts";
import type { FieldsProps } from "./Fields.tsx";
import { sourceKindOf } from "./form.ts";
import classes from "./Wizard.module.css";

/** The disks that each member has beside the boot disk. */
export function DiskFields({ form, change, errors, project }: FieldsProps) {
  const images = useImages();
  const offered = (images.data?.items ?? []).filter(
    (image) => image.version_count > 0 && (project === undefined || image.project === project),
  );
  const sizes = new Map(offered.map(({ name, size_bytes }) => [name, size_bytes]));
  const disks = form.further.map(diskOf);
  const set = (changed: readonly FurtherDisk[]) => change({ further: changed.map(diskText) });
  return (
    <Stack gap="sm">
      <Input.Wrapper
        label="Further disks of each"
        labelElement="div"
        description={
          sourceKindOf(form) === "snapshot"
            ? "Beside those that the snapshot has, which each fork gets by itself."
            : "Beside the boot disk. Snapshots cut all disks of a member at one instant."
        }
        error={errors.disks}
      />
      {disks.map((disk, place) => (
        <OneDisk
          // biome-ignore lint/suspicious/noArrayIndexKey: a disk is known by its place, as in the request
          key={place}
          disk={disk}
          place={place}
          errors={errors}
          images={[...sizes.keys()]}
          onChange={(part) => set(disks.map((each, n) => (n === place ? changed(each, part, sizes) : each)))}
          onRemove={() => set(disks.filter((_, n) => n !== place))}
        />
      ))}
      {disks.length < mostDisks && (
        <Button
          size="compact-sm"
          variant="default"
          leftSection={<IconPlus size={14} />}
          onClick={() => set([...disks, anotherDisk(disks)])}
          style={{ alignSelf: "flex-start" }}
        >
          {disks.length === 0 ? "Add a disk" : "Another disk"}
        </Button>
      )}
    </Stack>
  );
}

function OneDisk({
  disk,
  place,
  errors,
  images,
  onChange,
  onRemove,
}: {
  disk: FurtherDisk;
  place: number;
  errors: FieldsProps["errors"];
  images: string[];
  onChange: (part: Partial<FurtherDisk>) => void;
  onRemove: () => void;
}) {
  const label = `Disk ${place + 1}`;
  const at = (field: keyof FurtherDisk) => ({
    value: disk[field],
    error: errors[`disk/${place}/${field}`],
    autoComplete: "off",
    spellCheck: false,
    "data-field": `disk/${place}/${field}`,
  });
  return (
    <fieldset className={classes.card} aria-label={label}>
      <Group justify="space-between" mb={4}>
        <Text size="sm" fw={600}>
          {label}
        </Text>
        <ActionIcon variant="subtle" color="gray" size={26} aria-label={`Remove disk ${place + 1}`} onClick={onRemove}>
          <IconX size={15} />
        </ActionIcon>
      </Group>
      <SimpleGrid cols={{ base: 1, xs: 3 }} spacing="sm">
        <TextInput
          label="Name of the disk"
          {...at("name")}
          onChange={(event) => onChange({ name: event.currentTarget.value })}
        />
        <TextInput
          label="Size"
          placeholder="10 GiB"
          {...at("size")}
          onChange={(event) => onChange({ size: event.currentTarget.value })}
        />
        <Autocomplete
          label="Starts as"
          placeholder="blank"
          data={images}
          {...at("source")}
          onChange={(source) => onChange({ source })}
        />
      </SimpleGrid>
    </fieldset>
  );
}

/** A disk that is to start as an image gets at least its size. What is typed as the size stays as it is. */
function changed(before: FurtherDisk, part: Partial<FurtherDisk>, sizes: ReadonlyMap<string, number | null>) {
  const disk = { ...before, ...part };
  const least = part.source === undefined ? null : sizes.get(part.source.trim());
  const size = sizeOf(disk.size);
  return least && size !== null && size < least ? { ...disk, size: sizeText(least) } : disk;
}
