import { Kbd, Modal, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { useRouter } from "@tanstack/react-router";
import { Fragment, useEffect } from "react";
import { useCommands } from "../commands/registry.ts";
import classes from "./KeyboardHelp.module.css";
import { KeySequences } from "./key-sequences.ts";
import { pages } from "./pages.ts";

const everywhere = [
  ["Ctrl K", "find a page, an action or a thing"],
  ["/", "filter the table"],
  ["?", "this help"],
  ["Esc", "close, or clear the filter"],
] as const;
const inTables = [
  ["↓ ↑", "move, also with j and k"],
  ["Enter", "open"],
  ["Space", "choose for an action"],
  ["Home End", "first and last row"],
  ["Esc", "choose nothing"],
] as const;

/** The keys that work everywhere, and the help about them. */
export function KeyboardHelp({ operator }: { operator: boolean }) {
  const [opened, { open, close }] = useDisclosure(false);
  const router = useRouter();
  const mine = pages.filter((page) => operator || !page.operators);
  useEffect(() => {
    const keys = new KeySequences({
      "?": open,
      ...Object.fromEntries(
        pages
          .filter((page) => operator || !page.operators)
          .map((page) => [`g ${page.go}`, () => void router.navigate({ to: page.to })]),
      ),
    });
    const listen = (event: KeyboardEvent) => keys.press(event);
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, [open, operator, router]);
  useCommands(
    () => [{ id: "keys", title: "Show the keys", words: "keyboard help", keys: "?", general: true, run: open }],
    [open],
  );
  return (
    <Modal opened={opened} onClose={close} title="Keys" size="lg" closeButtonProps={{ "aria-label": "Close" }}>
      <SimpleGrid cols={{ base: 1, sm: 2 }} spacing="xl">
        <Stack gap="lg">
          <Keys title="Everywhere" keys={everywhere} />
          <Keys title="In tables" keys={inTables} />
        </Stack>
        <Keys title="Go to" keys={mine.map((page) => [`g ${page.go}`, page.title] as const)} />
      </SimpleGrid>
    </Modal>
  );
}

function Keys({ title, keys }: { title: string; keys: readonly (readonly [string, string])[] }) {
  return (
    <div>
      <Title order={3} size="sm" mb="xs">
        {title}
      </Title>
      <dl className={classes.keys}>
        {keys.map(([key, meaning]) => (
          <Fragment key={key}>
            <dt>
              {key.split(" ").map((each) => (
                <Kbd key={each} size="xs" mr={4}>
                  {each}
                </Kbd>
              ))}
            </dt>
            <Text component="dd" size="sm" m={0}>
              {meaning}
            </Text>
          </Fragment>
        ))}
      </dl>
    </div>
  );
}
