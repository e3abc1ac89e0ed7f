import { ActionIcon, Checkbox, Popover, Stack, Tooltip, useMantineTheme } from "@mantine/core";
import { useLocalStorage, useMediaQuery } from "@mantine/hooks";
import { IconColumns3 } from "@tabler/icons-react";
import { useMemo } from "react";
import type { Column } from "./ThingsTable.tsx";

interface Choice<Row> {
  shown: readonly Column<Row>[];
  set: (key: string, show: boolean) => void;
}

/** Which columns are shown: what the reader chose, else what the column says and the window has room for. */
export function useColumnChoice<Row>(name: string, columns: readonly Column<Row>[]): Choice<Row> {
  const [chosen, setChosen] = useLocalStorage<Record<string, boolean>>({
    key: `muster.columns.${name}`,
    defaultValue: {},
    getInitialValueInEffect: false,
  });
  const { breakpoints } = useMantineTheme();
  const at = { getInitialValueInEffect: false };
  const sm = useMediaQuery(`(min-width: ${breakpoints.sm})`, true, at);
  const md = useMediaQuery(`(min-width: ${breakpoints.md})`, true, at);
  const lg = useMediaQuery(`(min-width: ${breakpoints.lg})`, true, at);
  const xl = useMediaQuery(`(min-width: ${breakpoints.xl})`, true, at);
  const shown = useMemo(() => {
    const room = { sm, md, lg, xl };
    return columns.filter(
      (column) => chosen[column.key] ?? (column.hidden !== true && (column.from === undefined || room[column.from])),
    );
  }, [columns, chosen, sm, md, lg, xl]);
  return { shown, set: (key, show) => setChosen((before) => ({ ...before, [key]: show })) };
}

export function ColumnChoice<Row>({ choice, columns }: { choice: Choice<Row>; columns: readonly Column<Row>[] }) {
  return (
    <Popover position="bottom-end" shadow="md" trapFocus>
      <Popover.Target>
        <Tooltip label="Columns">
          <ActionIcon variant="default" size={30} aria-label="Choose columns">
            <IconColumns3 size={16} />
          </ActionIcon>
        </Tooltip>
      </Popover.Target>
      <Popover.Dropdown>
        <Stack gap={8}>
          {columns.map((column) => (
            <Checkbox
              key={column.key}
              size="xs"
              label={column.title}
              checked={choice.shown.includes(column)}
              disabled={choice.shown.length === 1 && choice.shown.includes(column)}
              onChange={(event) => choice.set(column.key, event.currentTarget.checked)}
            />
          ))}
        </Stack>
      </Popover.Dropdown>
    </Popover>
  );
}
