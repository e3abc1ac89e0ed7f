import { Kbd, Modal, ScrollArea, Text, TextInput, UnstyledButton } from "@mantine/core";
import { useDisclosure, useHotkeys } from "@mantine/hooks";
import { IconSearch } from "@tabler/icons-react";
import { useRouter } from "@tanstack/react-router";
import { type KeyboardEvent, useId, useMemo, useState } from "react";
import { useAllCommands } from "../../commands/registry.ts";
import { pages } from "../pages.ts";
import classes from "./CommandPalette.module.css";
import { openPalette, usePaletteOpener } from "./open.ts";

interface Entry {
  id: string;
  title: string;
  hint: string;
  words: string;
  run: () => void;
}

/** Ctrl-K: goes to any page and does any action by name. */
export function CommandPalette({ operator }: { operator: boolean }) {
  const [opened, { open, close, toggle }] = useDisclosure(false);
  useHotkeys([["mod+K", toggle]], []);
  usePaletteOpener(open);
  return (
    <Modal
      opened={opened}
      onClose={close}
      withCloseButton={false}
      padding={0}
      size={620}
      yOffset="12vh"
      centered={false}
      aria-label="Command palette"
    >
      {opened && <Search operator={operator} onDone={close} />}
    </Modal>
  );
}

function Search({ operator, onDone }: { operator: boolean; onDone: () => void }) {
  const router = useRouter();
  const commands = useAllCommands();
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const id = useId();
  const entries = useMemo<Entry[]>(
    () => [
      ...commands.map((command) => ({
        id: command.id,
        title: command.title,
        hint: command.keys ?? "action",
        words: command.words ?? "",
        run: command.run,
      })),
      ...pages
        .filter((page) => operator || !page.operators)
        .map((page) => ({
          id: page.to,
          title: page.title,
          hint: "page",
          words: "go to",
          run: () => void router.navigate({ to: page.to }),
        })),
    ],
    [commands, operator, router],
  );
  const found = useMemo(() => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return entries.filter((entry) => {
      const all = `${entry.title} ${entry.words} ${entry.hint}`.toLowerCase();
      return words.every((word) => all.includes(word));
    });
  }, [entries, text]);
  const run = (entry: Entry | undefined) => {
    if (entry === undefined) return;
    onDone();
    entry.run();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown") setAt(Math.min(at + 1, found.length - 1));
    else if (event.key === "ArrowUp") setAt(Math.max(at - 1, 0));
    else if (event.key === "Enter") run(found[at]);
    else return;
    event.preventDefault();
  };
  return (
    <>
      <TextInput
        data-autofocus
        size="md"
        variant="unstyled"
        className={classes.input}
        leftSection={<IconSearch size={17} />}
        placeholder="Find a page, a thing or an action"
        aria-label="Find a page, a thing or an action"
        role="combobox"
        aria-expanded
        aria-controls={id}
        aria-activedescendant={found[at] === undefined ? undefined : `${id}-${at}`}
        value={text}
        onChange={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={onKeyDown}
      />
      <ScrollArea.Autosize mah="52vh">
        <div role="listbox" id={id} aria-label="What was found" className={classes.list}>
          {found.map((entry, index) => (
            <UnstyledButton
              key={`${entry.hint} ${entry.id}`}
              id={`${id}-${index}`}
              role="option"
              aria-selected={index === at}
              tabIndex={-1}
              className={classes.entry}
              onMouseMove={() => setAt(index)}
              onClick={() => run(entry)}
            >
              <span className={classes.title}>{entry.title}</span>
              <Text size="xs" c="dimmed">
                {entry.hint}
              </Text>
            </UnstyledButton>
          ))}
        </div>
        {found.length === 0 && (
          <Text size="sm" c="dimmed" p="lg" ta="center">
            Nothing has that name.
          </Text>
        )}
      </ScrollArea.Autosize>
    </>
  );
}

export function PaletteButton() {
  return (
    <UnstyledButton className={classes.opener} onClick={openPalette} aria-label="Open the command palette">
      <IconSearch size={15} />
      <span className={classes.openerText}>Search</span>
      <Kbd size="xs" className={classes.openerText}>
        Ctrl K
      </Kbd>
    </UnstyledButton>
  );
}
