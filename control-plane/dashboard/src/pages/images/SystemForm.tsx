import { NativeSelect, Stack, Text, TextInput } from "@mantine/core";
import { useState } from "react";
import { type Image, useChangeImage } from "../../api/images.ts";
import { ConfirmDialog } from "../../ui/ConfirmDialog.tsx";
import { sizeHint } from "../../ui/size.ts";
import { toastDone } from "../../ui/toast.tsx";
import { type SystemTexts, systemChange, systemTexts } from "./system.ts";
import { firmwareText, firmwareWords } from "./words.ts";

const fields: { field: Exclude<keyof SystemTexts, "firmware">; label: string; placeholder: string }[] = [
  { field: "os", label: "Operating system", placeholder: "debian-12" },
  { field: "user", label: "User for signing in", placeholder: "debian" },
  { field: "disk", label: "Least disk", placeholder: "as large as the image" },
  { field: "memory", label: "Least memory", placeholder: "512 MiB" },
];

/** Says what is known of the system on an image. */
export function SystemForm({ image, onClose }: { image: Image; onClose: () => void }) {
  const [texts, setTexts] = useState(() => systemTexts(image));
  const change = useChangeImage();
  const meant = systemChange(texts);
  const unread = "unread" in meant ? meant.unread : undefined;
  return (
    <ConfirmDialog
      opened
      onClose={onClose}
      title={`The system on ${image.name}`}
      confirm="Save"
      onConfirm={async () => {
        if ("unread" in meant) throw new Error(sizeHint);
        await change.mutateAsync({ image, change: meant.change });
        toastDone(`What is known of ${image.name} is saved`);
      }}
    >
      <Stack gap="sm">
        {fields.map(({ field, label, placeholder }) => (
          <TextInput
            key={field}
            label={label}
            placeholder={placeholder}
            value={texts[field]}
            error={field === unread ? sizeHint : undefined}
            onChange={(event) => {
              const text = event.currentTarget.value;
              setTexts((now) => ({ ...now, [field]: text }));
            }}
            autoComplete="off"
            {...(field === "os" ? { "data-autofocus": true } : {})}
          />
        ))}
        <NativeSelect
          label="Firmware"
          value={texts.firmware}
          onChange={(event) => {
            const firmware = event.currentTarget.value as SystemTexts["firmware"];
            setTexts((now) => ({ ...now, firmware }));
          }}
          data={[
            { value: "", label: `As it is now: ${firmwareText(image.firmware)}` },
            { value: "auto", label: "Automatic: what its newest version needs" },
            ...Object.entries(firmwareWords).map(([value, label]) => ({ value, label })),
          ]}
        />
        <Text size="xs" c="dimmed">
          New deployments get at least this memory and disk, and this firmware. What is left empty is not known.
        </Text>
      </Stack>
    </ConfirmDialog>
  );
}
