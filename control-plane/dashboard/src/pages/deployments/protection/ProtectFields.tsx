import { SimpleGrid, Stack, Text, TextInput } from "@mantine/core";
import type { ProtectField, ProtectForm } from "./protect-form.ts";

interface Props {
  form: ProtectForm;
  change: (changes: Partial<ProtectForm>) => void;
  errors: Partial<Record<ProtectField, string>>;
  /** Whether it may be left empty, which means no protection. */
  optional?: boolean;
}

/** How often members are saved by themselves, and which of these snapshots stay. */
export function ProtectFields({ form, change, errors, optional = false }: Props) {
  const typed = (field: ProtectField, label: string, placeholder: string) => (
    <TextInput
      label={label}
      placeholder={placeholder}
      value={form[field]}
      onChange={(event) => change({ [field]: event.currentTarget.value })}
      error={errors[field]}
      inputMode="numeric"
      autoComplete="off"
      data-field={field}
    />
  );
  return (
    <Stack gap="sm">
      <TextInput
        label="Save the members every"
        description="A snapshot is taken in the background each time this has passed, 5m to 7d. The loss of a host then costs about that much."
        placeholder={optional ? "never by itself" : "15m"}
        value={form.every}
        onChange={(event) => change({ every: event.currentTarget.value })}
        error={errors.every}
        autoComplete="off"
        spellCheck={false}
        data-field="every"
      />
      {(form.every.trim() !== "" || !optional || Object.keys(errors).length > 0) && (
        <>
          <SimpleGrid cols={{ base: 1, xs: 2 }} spacing="sm">
            {typed("last", "Keep so many of the newest", "1")}
            {typed("hourly", "One of each of so many hours", "0")}
            {typed("daily", "One of each of so many days", "0")}
            {typed("weekly", "One of each of so many weeks", "0")}
          </SimpleGrid>
          <Text size="xs" c="dimmed">
            A snapshot stays if any of these rules wants it; hours, days and weeks are those of UTC. The newest always
            stays, and so does what people took.
          </Text>
        </>
      )}
    </Stack>
  );
}
