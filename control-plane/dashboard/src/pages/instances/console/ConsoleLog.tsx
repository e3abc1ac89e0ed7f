import {
  ActionIcon,
  Button,
  Group,
  Select,
  Stack,
  Switch,
  Text,
  TextInput,
  Tooltip,
  useComputedColorScheme,
} from "@mantine/core";
import { useClipboard } from "@mantine/hooks";
import { IconCheck, IconChevronDown, IconChevronUp, IconCopy, IconDownload, IconSearch } from "@tabler/icons-react";
import { useEffect, useRef, useState } from "react";
import { ApiError } from "../../../api/client.ts";
import { consoleAddress, type Instance } from "../../../api/instances.ts";
import { ErrorBox } from "../../../ui/ErrorBox.tsx";
import classes from "./Console.module.css";
import { type Match, matchesText } from "./console-text.ts";
import { LogTerminal } from "./log-terminal.ts";
import { type Reading, useConsole } from "./useConsole.ts";

const tails = [
  { value: "64KiB", label: "Last 64 KiB" },
  { value: "1MiB", label: "Last 1 MiB" },
  { value: "16MiB", label: "Last 16 MiB" },
];

/** What an instance has printed on its console, as a terminal shows it, and what it prints now. */
export default function ConsoleLog({ instance }: { instance: Instance }) {
  const box = useRef<HTMLDivElement>(null);
  const searchInput = useRef<HTMLInputElement>(null);
  const [terminal, setTerminal] = useState<LogTerminal | null>(null);
  const [tail, setTail] = useState("64KiB");
  const [follow, setFollow] = useState(true);
  const scheme = useComputedColorScheme("light", { getInitialValueInEffect: false });
  const clipboard = useClipboard({ timeout: 1500 });
  const reading = useConsole(instance, tail, follow, terminal);

  useEffect(() => {
    if (box.current === null) return undefined;
    const made = new LogTerminal(box.current);
    setTerminal(made);
    return () => made.dispose();
  }, []);
  useEffect(() => terminal?.setScheme(scheme), [terminal, scheme]);

  const shownNothing = reading.error !== undefined && reading.empty;
  return (
    <Stack gap="xs">
      <Group gap="xs">
        <Search terminal={terminal} input={searchInput} />
        <Select
          size="xs"
          w={126}
          data={tails}
          value={tail}
          onChange={(value) => setTail(value ?? "64KiB")}
          allowDeselect={false}
          aria-label="How much is shown"
        />
        <Switch
          size="xs"
          label="Follow"
          checked={follow}
          onChange={(event) => {
            setFollow(event.currentTarget.checked);
            if (event.currentTarget.checked) terminal?.toEnd();
          }}
        />
        <Group gap={6} ml="auto" wrap="nowrap">
          <HowRead reading={reading} />
          <Tooltip label={clipboard.copied ? "Copied" : "Copy all that is shown"}>
            <ActionIcon
              variant="default"
              size={30}
              aria-label="Copy all that is shown"
              onClick={() => clipboard.copy(terminal?.text() ?? "")}
            >
              {clipboard.copied ? <IconCheck size={15} color="var(--state-good)" /> : <IconCopy size={15} />}
            </ActionIcon>
          </Tooltip>
          <Tooltip label="Download the last 16 MiB">
            <ActionIcon
              component="a"
              href={consoleAddress(instance)}
              download={`${instance.name}.log`}
              variant="default"
              size={30}
              aria-label="Download the last 16 MiB"
            >
              <IconDownload size={15} />
            </ActionIcon>
          </Tooltip>
        </Group>
      </Group>
      {/* biome-ignore lint/a11y/noStaticElementInteractions: the key goes to the search that belongs to the console */}
      <div
        className={classes.box}
        onKeyDown={(event) => {
          if ((event.ctrlKey || event.metaKey) && event.key === "f") {
            event.preventDefault();
            searchInput.current?.focus();
          }
        }}
      >
        <section ref={box} className={classes.screen} aria-label={`Console of ${instance.name}`} />
        {reading.empty && (
          <div className={classes.over}>
            {shownNothing ? (
              <ErrorBox error={reading.error} title="The console cannot be read" />
            ) : (
              <Text size="sm" c="dimmed">
                {reading.how === "first" ? "Reading the console…" : "It has printed nothing on its serial console yet."}
              </Text>
            )}
          </div>
        )}
      </div>
      {reading.error !== undefined && !reading.empty && (
        <Text size="xs" c="dimmed" role="status">
          What is shown may be old: {reading.error instanceof ApiError ? reading.error.detail : String(reading.error)}.
          It is tried again.
        </Text>
      )}
    </Stack>
  );
}

/** Whether what is shown is up to date. */
function HowRead({ reading }: { reading: Reading }) {
  const words: Record<Reading["how"], [string, string]> = {
    first: ["", ""],
    live: ["live", "Output is shown as it is printed."],
    repeated: ["every 10 s", "It is read again every 10 s, and when the instance changes."],
    paused: ["paused", "New output is not shown until you follow again."],
  };
  const [word, meaning] = words[reading.how];
  return word === "" ? null : (
    <Tooltip label={meaning}>
      <Text size="xs" c="dimmed" className="nowrap">
        {word}
      </Text>
    </Tooltip>
  );
}

function Search({
  terminal,
  input,
}: {
  terminal: LogTerminal | null;
  input: React.RefObject<HTMLInputElement | null>;
}) {
  const [text, setText] = useState("");
  const [found, setFound] = useState<{ matches: Match[]; at: number }>();
  const look = (wanted: string) => {
    setText(wanted);
    if (terminal === null) return;
    if (wanted === "") {
      terminal.showNothing();
      setFound(undefined);
      return;
    }
    const matches = terminal.find(wanted);
    // The newest output is at the end.
    const at = matches.length - 1;
    setFound({ matches, at });
    const match = matches[at];
    if (match === undefined) terminal.showNothing();
    else terminal.show(match);
  };
  const go = (step: 1 | -1) => {
    if (terminal === null || text === "") return;
    // Lines may have been added, or moved out of sight, since the last look.
    const matches = terminal.find(text);
    const at = matches.length === 0 ? 0 : ((found?.at ?? 0) + step + matches.length) % matches.length;
    setFound({ matches, at });
    const match = matches[at];
    if (match !== undefined) terminal.show(match);
  };
  return (
    <Group gap={4} wrap="nowrap" className={classes.search}>
      <TextInput
        ref={input}
        size="xs"
        flex={1}
        placeholder="Search the console"
        aria-label="Search the console"
        leftSection={<IconSearch size={14} />}
        rightSection={
          found === undefined ? undefined : (
            <Text size="xs" c="dimmed" className="nowrap" role="status">
              {matchesText(found.matches.length, found.at)}
            </Text>
          )
        }
        rightSectionWidth={found === undefined ? undefined : 78}
        value={text}
        onChange={(event) => look(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter") {
            event.preventDefault();
            go(event.shiftKey ? 1 : -1);
          } else if (event.key === "Escape") look("");
        }}
        autoComplete="off"
        spellCheck={false}
      />
      {found !== undefined && found.matches.length > 1 && (
        <Button.Group>
          <ActionIcon variant="default" size={30} aria-label="Match before" onClick={() => go(-1)}>
            <IconChevronUp size={14} />
          </ActionIcon>
          <ActionIcon variant="default" size={30} aria-label="Match after" onClick={() => go(1)}>
            <IconChevronDown size={14} />
          </ActionIcon>
        </Button.Group>
      )}
    </Group>
  );
}
