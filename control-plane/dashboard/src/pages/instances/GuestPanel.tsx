import { Group, Stack, Text } from "@mantine/core";
import type { Schemas } from "../../api/client.ts";
import type { Instance } from "../../api/instances.ts";
import { CopyId } from "../../ui/CopyId.tsx";
import { bytes } from "../../ui/format.ts";
import { KeyValues } from "../../ui/KeyValues.tsx";
import { Panel } from "../../ui/Panel.tsx";
import { ToneIcon } from "../../ui/StateBadge.tsx";
import { Meter } from "../nodes/Meter.tsx";
import classes from "./GuestPanel.module.css";

type Guest = Schemas["Guest"];

/** What the guest says of itself, through its guest agent. All of it is the guest's word. */
export function GuestPanel({ instance }: { instance: Instance }) {
  const { guest, runtime, state } = instance;
  const runs = state === "running";
  if (runtime === "none" || (guest === undefined && !runs)) return null;
  return (
    <Panel title="What its guest tells">
      {guest === undefined ? (
        <Text size="sm" c="dimmed">
          No guest agent has answered in this start. With qemu-guest-agent in the guest, its system, host name,
          addresses and file systems are here.
        </Text>
      ) : (
        <Stack gap="md" className={classes.guest}>
          {(!guest.answers || !runs) && (
            <Group gap={8} wrap="nowrap" align="flex-start">
              <ToneIcon tone={runs ? "warn" : "idle"} />
              <Text size="sm">
                {runs ? "Its guest agent does not answer now." : `Its state is ${state} now.`} This is what it told
                before.
              </Text>
            </Group>
          )}
          <KeyValues items={factsOf(guest)} />
          {guest.file_systems.length > 0 && <FileSystems all={guest.file_systems} />}
        </Stack>
      )}
    </Panel>
  );
}

function factsOf({ os, host_name, agent_version, interfaces }: Guest) {
  return [
    ["System", os?.name ?? ([os?.id, os?.version].filter(Boolean).join(" ") || null)],
    ["Kernel", os?.kernel ?? undefined],
    ["Host name in the guest", host_name],
    ["Guest agent", agent_version],
    ...(interfaces.length === 0 ? [] : [["Addresses in the guest", <Addresses key="addresses" of={interfaces} />]]),
  ] as Parameters<typeof KeyValues>[0]["items"];
}

function Addresses({ of }: { of: Guest["interfaces"] }) {
  return of.map(({ name, addresses }, place) => (
    // biome-ignore lint/suspicious/noArrayIndexKey: a guest may give two cards the same name
    <div key={place}>
      {name}
      {addresses.length === 0 && " has none"}
      {addresses.map((address, n) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: nor need its addresses differ
        <div key={n}>
          <CopyId value={address} label="address" />
        </div>
      ))}
    </div>
  ));
}

function FileSystems({ all }: { all: Guest["file_systems"] }) {
  return (
    <section aria-label="File systems of the guest" className={classes.fileSystems}>
      {all.map(({ mount, kind, size_bytes, used_bytes }, place) => {
        const label = `${mount} (${kind})`;
        return size_bytes === null || used_bytes === null ? (
          // biome-ignore lint/suspicious/noArrayIndexKey: a guest may mount two file systems at one place
          <Text key={place} size="sm">
            {label}{" "}
            <Text span size="sm" c="dimmed">
              {size_bytes === null ? "its size is not told" : `of ${bytes(size_bytes)}; its use is not told`}
            </Text>
          </Text>
        ) : (
          // biome-ignore lint/suspicious/noArrayIndexKey: a guest may mount two file systems at one place
          <Meter key={place} label={label} used={used_bytes} total={size_bytes} format={bytes} />
        );
      })}
    </section>
  );
}
