import { Button, Group, Text } from "@mantine/core";
import { IconMaximize } from "@tabler/icons-react";
import type { ReactNode, RefObject } from "react";
import type { Instance } from "../../../api/instances.ts";
import { ToneIcon } from "../../../ui/StateBadge.tsx";
import type { Phase } from "./connection.ts";
import { phaseWords } from "./phase-words.ts";
import { hasConsole } from "./useConnection.ts";

interface Props {
  instance: Instance;
  phase: Phase;
  /** What is told while it is open. */
  what: string;
  onOpen: () => void;
  /** What fills the screen when that is asked for. */
  whole: RefObject<HTMLElement | null>;
  /** Where the keyboard goes when it leaves the guest. */
  first: RefObject<HTMLButtonElement | null>;
  /** Further buttons. */
  children?: ReactNode;
}

/** How it stands with a console, and what can be done with it. */
export function ConsoleBar({ instance, phase, what, onOpen, whole, first, children }: Props) {
  const isOn = hasConsole(instance);
  const { tone, text } = isOn
    ? phaseWords(phase, what)
    : ({ tone: "idle", text: `It is ${instance.state}. The console opens by itself once the guest runs.` } as const);
  return (
    <Group gap="xs" mih={30}>
      <Group gap={6} wrap="nowrap" role="status" flex="1 1 220px" miw={0}>
        <ToneIcon tone={tone} />
        <Text size="sm">{text}</Text>
      </Group>
      <Group gap="xs">
        {isOn && phase.at === "ended" && (
          <Button size="xs" onClick={onOpen}>
            Open it again
          </Button>
        )}
        {isOn && phase.at === "waiting" && (
          <Button size="xs" variant="default" onClick={onOpen}>
            Try now
          </Button>
        )}
        {children}
        <Button
          ref={first}
          size="xs"
          variant="default"
          leftSection={<IconMaximize size={14} />}
          onClick={() => void whole.current?.requestFullscreen?.()}
        >
          Full screen
        </Button>
      </Group>
    </Group>
  );
}
