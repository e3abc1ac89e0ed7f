import { Checkbox, Stack, Textarea } from "@mantine/core";
import type { SeedField, SeedForm } from "./seed.ts";

/** What guests are told at their first boot. */
export function SeedFields({
  seed,
  change,
  errors,
  fork,
}: {
  seed: SeedForm;
  change: (changes: Partial<SeedForm>) => void;
  errors: Partial<Record<SeedField, string>>;
  fork: boolean;
}) {
  return (
    <Stack gap="sm">
      <Textarea
        label="Public SSH keys"
        description="One on each line. Their owners may sign in to the guests."
        placeholder="ssh-ed25519 AAAA… me@laptop"
        value={seed.keys}
        onChange={(event) => change({ keys: event.currentTarget.value })}
        error={errors.keys}
        autosize
        minRows={2}
        maxRows={8}
        autoComplete="off"
        spellCheck={false}
        data-field="keys"
      />
      <Textarea
        label="User data"
        description="What each guest does when it boots for the first time: cloud-config, a script or MIME parts. It may be secret, so
          the address of this page does not have it; it is gone when you leave."
        placeholder={"#cloud-config\npackages: [nginx]"}
        value={seed.data}
        onChange={(event) => change({ data: event.currentTarget.value })}
        error={errors.data}
        autosize
        minRows={3}
        maxRows={16}
        autoComplete="off"
        spellCheck={false}
        data-field="data"
      />
      {fork && (
        <Checkbox
          label="Take over no keys and no user data"
          description="Otherwise a fork is told what the deployment was told that the snapshot is of, where nothing else is given."
          checked={seed.fresh}
          onChange={(event) => change({ fresh: event.currentTarget.checked })}
        />
      )}
    </Stack>
  );
}
