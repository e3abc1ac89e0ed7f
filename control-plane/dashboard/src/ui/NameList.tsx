import { List } from "@mantine/core";
import { count } from "./format.ts";

const shown = 8;

/** The names of what a dialog is about: the first few, and how many more. */
export function NameList({ things }: { things: readonly { id: string; name: string }[] }) {
  return (
    <List size="sm">
      {things.slice(0, shown).map(({ id, name }) => (
        <List.Item key={id}>{name}</List.Item>
      ))}
      {things.length > shown && <List.Item>and {count(things.length - shown)} more</List.Item>}
    </List>
  );
}
