import { Kbd, Loader, Modal, ScrollArea, Text, TextInput, UnstyledButton } from "@mantine/core";
import { useDisclosure, useHotkeys } from "@mantine/hooks";
import { IconArrowRight, IconBolt, IconSearch } from "@tabler/icons-react";
import { useIsFetching } from "@tanstack/react-query";
import { useRouter } from "@tanstack/react-router";
import { type KeyboardEvent, type ReactNode, useDeferredValue, useId, useMemo, useRef, useState } from "react";
import { useAllCommands, useCommands } from "../../commands/registry.ts";
import { ThingIcon } from "../../ui/ThingIcon.tsx";
import { thingAddress } from "../../ui/thing-address.ts";
import { pages } from "../pages.ts";
import classes from "./CommandPalette.module.css";
import { openPalette, usePaletteOpener } from "./open.ts";
import { type Findable, rank } from "./rank.ts";
import { useThings } from "./things.ts";

interface Entry extends Findable {
  id: string;
  icon: ReactNode;
  hint: string;
  run: () => void;
}

/** Ctrl-K: finds any page, any thing and any action, by the keyboard alone. */
export function CommandPalette({ operator }: { operator: boolean }) {
  const [opened, { open, close, toggle }] = useDisclosure(false);
  const router = useRouter();
  useCommands(
    () => [
      {
        id: "new-deployment",
        title: "New deployment",
        words: "deploy start create instances",
        general: true,
        run: () => void router.navigate({ to: "/deployments/new" }),
      },
    ],
    [router],
  );
  useHotkeys([["mod+K", toggle]], []);
  usePaletteOpener(open);
  return (
    <Modal
      opened={opened}
      onClose={close}
      withCloseButton={false}
      padding={0}
      size={640}
      yOffset="10vh"
      centered={false}
      attributes={{ content: { "aria-label": "Command palette" } }}
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
  const list = useRef<HTMLDivElement>(null);
  const id = useId();
  const things = useThings(text, operator);
  const looking = useIsFetching({ queryKey: ["lookup"] }) > 0;
  const entries = useMemo<Entry[]>(() => {
    const actions = commands.map((command) => ({
      id: `action ${command.id}`,
      title: command.title,
      words: [command.words ?? "", "action"],
      icon: <IconBolt size={16} />,
      hint: command.keys ?? "",
      general: command.general === true,
      run: command.run,
    }));
    return [
      // What one can do here comes first, what one can do everywhere last.
      ...actions.filter(({ general }) => !general),
      ...pages
        .filter((page) => operator || !page.operators)
        .map((page) => ({
          id: `page ${page.to}`,
          title: page.title,
          words: ["go to page"],
          icon: <page.icon size={16} />,
          hint: `g ${page.go}`,
          run: () => void router.navigate({ to: page.to }),
        })),
      ...actions.filter(({ general }) => general),
      ...things.map((thing) => ({
        id: thing.id,
        title: thing.name,
        words: [thing.kind.replaceAll("_", " "), thing.id, thing.state ?? ""],
        icon: <ThingIcon kind={thing.kind} size={16} />,
        hint: [thing.kind.replaceAll("_", " "), thing.project === "default" ? "" : thing.project, thing.state]
          .filter(Boolean)
          .join(" · "),
        run: () => void router.navigate(thingAddress(thing)),
      })),
    ];
  }, [commands, operator, router, things]);
  const wanted = useDeferredValue(text);
  const found = useMemo(() => rank(entries, wanted), [entries, wanted]);
  const here = Math.min(at, Math.max(0, found.length - 1));
  const move = (to: number) => {
    const next = Math.max(0, Math.min(found.length - 1, to));
    setAt(next);
    list.current?.children[next]?.scrollIntoView({ block: "nearest" });
  };
  const run = (entry: Entry | undefined) => {
    if (entry === undefined) return;
    onDone();
    entry.run();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown") move(here === found.length - 1 ? 0 : here + 1);
    else if (event.key === "ArrowUp") move(here === 0 ? found.length - 1 : here - 1);
    else if (event.key === "PageDown") move(here + 8);
    else if (event.key === "PageUp") move(here - 8);
    else if (event.key === "Enter") run(found[here]);
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
        rightSection={looking ? <Loader size={14} aria-label="Asking the controller" /> : null}
        placeholder="Find a page, an action, or a thing by name or id"
        aria-label="Find a page, an action, or a thing by name or id"
        role="combobox"
        aria-expanded
        aria-controls={id}
        aria-activedescendant={found[here] === undefined ? undefined : `${id}-${here}`}
        autoComplete="off"
        spellCheck={false}
        value={text}
        onChange={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={onKeyDown}
      />
      <ScrollArea.Autosize mah="56vh" type="auto">
        <div role="listbox" id={id} ref={list} aria-label="What was found" className={classes.list}>
          {found.map((entry, index) => (
            <UnstyledButton
              key={entry.id}
              id={`${id}-${index}`}
              role="option"
              aria-selected={index === here}
              tabIndex={-1}
              className={classes.entry}
              onMouseMove={() => setAt(index)}
              onClick={() => run(entry)}
            >
              <span className={classes.icon}>{entry.icon}</span>
              <span className={classes.title}>{entry.title}</span>
              <span className={classes.hint}>{entry.hint}</span>
              {index === here && <IconArrowRight size={14} className={classes.icon} />}
            </UnstyledButton>
          ))}
        </div>
        {found.length === 0 && (
          <Text size="sm" c="dimmed" p="lg" ta="center" role="status">
            {looking
              ? "Asking the controller."
              : "Nothing here has that name. An instance is found by its whole name or id."}
          </Text>
        )}
      </ScrollArea.Autosize>
      <div className={classes.foot}>
        <span>
          <Kbd size="xs">↑</Kbd> <Kbd size="xs">↓</Kbd> choose
        </span>
        <span>
          <Kbd size="xs">Enter</Kbd> go
        </span>
        <span>
          <Kbd size="xs">Esc</Kbd> close
        </span>
      </div>
    </>
  );
}

export function PaletteButton() {
  return (
    <UnstyledButton className={classes.opener} onClick={openPalette} title="Find a page, an action or a thing">
      <IconSearch size={15} />
      <span className={classes.openerText}>Search</span>
      <Kbd size="xs" className={classes.openerText}>
        Ctrl K
      </Kbd>
    </UnstyledButton>
  );
}
