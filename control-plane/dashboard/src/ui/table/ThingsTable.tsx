/**
 * The one table of the dashboard. It sorts, filters, lets its reader choose columns and rows, and draws only what is in
 * sight, so that 10,000 rows are as quick as ten. Filter and sorting live in the URL, the choice of columns in the
 * browser's storage. Keys: arrows or j and k move, enter opens, space selects, / goes to the filter.
 */
import { Checkbox, Group, Loader, Skeleton, Stack, Text, TextInput, UnstyledButton } from "@mantine/core";
import { IconArrowDown, IconArrowUp, IconSearch } from "@tabler/icons-react";
import { type NavigateOptions, useNavigate } from "@tanstack/react-router";
import {
  type KeyboardEvent,
  memo,
  type ReactNode,
  useDeferredValue,
  useEffect,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "react";
import { BulkBar } from "../BulkBar.tsx";
import { EmptyState } from "../EmptyState.tsx";
import { ErrorBox } from "../ErrorBox.tsx";
import { count } from "../format.ts";
import { useSearchState } from "../search-state.ts";
import { type CellValue, facetRows, filterRows, prepareTexts, sortRows, windowOf } from "./arrange.ts";
import { ColumnChoice, useColumnChoice } from "./ColumnChoice.tsx";
import { FacetChoice } from "./FacetChoice.tsx";
import classes from "./ThingsTable.module.css";

export interface Column<Row> {
  /** Stable name, for the URL and the storage. */
  key: string;
  title: string;
  /** What the column is sorted by and found by. */
  value: (row: Row) => CellValue;
  /** How a cell looks; its value as text if left out. */
  cell?: (row: Row) => ReactNode;
  align?: "right";
  /** Width in pixels. Columns without one share what is left. */
  width?: number;
  /** Not shown until the reader asks for it. */
  hidden?: boolean;
  /** Shown by itself only where the window is at least this wide (Mantine's `sm`, `md`, `lg`, `xl`). */
  from?: "sm" | "md" | "lg" | "xl";
}

export interface Facet {
  /** The key of a column. */
  key: string;
  title: string;
  /** Values to offer. Left out: those that occur in the rows. */
  options?: readonly string[];
}

interface Props<Row> {
  /** Name of the table in the storage and for screen readers: the plural of what it lists. */
  name: string;
  rows: readonly Row[] | undefined;
  /** False while further pages are on their way. */
  complete?: boolean;
  error?: unknown;
  onRetry?: () => void;
  rowId: (row: Row) => string;
  /** Keep the array the same between draws (a constant of the module, or useMemo). */
  columns: readonly Column<Row>[];
  facets?: readonly Facet[];
  /** The sorting while the URL has none: a key, `-key` for descending. */
  sort?: string;
  /** Where enter and a click lead. */
  link?: (row: Row) => NavigateOptions;
  /** The buttons for chosen rows. Without them, rows cannot be chosen. */
  bulk?: (rows: Row[], clear: () => void) => ReactNode;
  /** Shown when there is nothing at all. */
  empty?: ReactNode;
  /** Stands beside the filter. */
  toolbar?: ReactNode;
  /** Set where a page has more than one table: prefix of its keys in the URL. */
  prefix?: string;
}

const rowHeight = 36;
/** Shorter tables are drawn whole. */
const drawnWhole = 200;
const noRows: readonly never[] = [];

export function ThingsTable<Row extends object>(props: Props<Row>) {
  const { name, columns, facets = noRows, rowId, prefix = "", bulk, link } = props;
  const rows = props.rows ?? noRows;
  const defaults = useRef<Record<string, string | string[]>>({
    [`${prefix}q`]: "",
    [`${prefix}sort`]: props.sort ?? "",
    ...Object.fromEntries(facets.map(({ key }) => [prefix + key, [] as string[]])),
  });
  const [search, setSearch] = useSearchState(defaults.current);
  const urlFilter = search[`${prefix}q`] as unknown as string;
  const sort = search[`${prefix}sort`] as unknown as string;

  // What is typed counts at once; the URL follows when the typing pauses.
  const [filter, setFilter] = useState(urlFilter);
  const written = useRef(urlFilter);
  useEffect(() => {
    if (urlFilter !== written.current) {
      written.current = urlFilter;
      setFilter(urlFilter);
    }
  }, [urlFilter]);
  useEffect(() => {
    if (filter === written.current) return undefined;
    const timer = setTimeout(() => {
      written.current = filter;
      setSearch({ [`${prefix}q`]: filter } as never);
    }, 250);
    return () => clearTimeout(timer);
  }, [filter, prefix, setSearch]);

  const chosen = useMemo(
    () => Object.fromEntries(facets.map(({ key }) => [key, search[prefix + key] as unknown as string[]])),
    [facets, search, prefix],
  );
  const wanted = useDeferredValue(filter);
  const found = useMemo(
    () => filterRows(facetRows(rows, columns, chosen), columns, rowId, wanted),
    [rows, columns, chosen, rowId, wanted],
  );
  const arranged = useMemo(() => sortRows(found, columns, sort), [found, columns, sort]);

  // A long table gets its texts ready in small steps, while nothing else is asked of it.
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const step = (from: number) => {
      const next = prepareTexts(rows, columns, rowId, from);
      if (next < rows.length) timer = setTimeout(step, 20, next);
    };
    if (rows.length > 1000) timer = setTimeout(step, 100, 0);
    return () => clearTimeout(timer);
  }, [rows, columns, rowId]);

  const choice = useColumnChoice(name, columns);
  const shown = choice.shown;

  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const picked = useMemo(
    () => (selected.size === 0 ? [] : rows.filter((row) => selected.has(rowId(row)))),
    [rows, rowId, selected],
  );
  const clear = () => setSelected(new Set());
  const toggle = (id: string) =>
    setSelected((before) => {
      const after = new Set(before);
      if (!after.delete(id)) after.add(id);
      return after;
    });

  const [active, setActive] = useState<string>();
  const scroller = useRef<HTMLDivElement>(null);
  const grid = useRef<HTMLTableElement>(null);
  const filterInput = useRef<HTMLInputElement>(null);
  const domId = useId();
  const navigate = useNavigate();
  const view = useScrollWindow(scroller, arranged.length);

  const open = (row: Row) => {
    if (link !== undefined) void navigate(link(row));
  };
  const moveTo = (index: number) => {
    const row = arranged[Math.max(0, Math.min(arranged.length - 1, index))];
    const box = scroller.current;
    if (row === undefined || box === null) return;
    setActive(rowId(row));
    const top = Math.max(0, Math.min(arranged.length - 1, index)) * rowHeight;
    const room = box.clientHeight - rowHeight;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + rowHeight > box.scrollTop + room) box.scrollTop = top + rowHeight - room;
  };
  const onKeyDown = (event: KeyboardEvent<HTMLTableElement>) => {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = arranged.findIndex((row) => rowId(row) === active);
    const row = arranged[at];
    const steps: Record<string, number> = {
      ArrowDown: at + 1,
      j: at + 1,
      ArrowUp: at - 1,
      k: at - 1,
      PageDown: at + 15,
      PageUp: at - 15,
      Home: 0,
      End: arranged.length - 1,
    };
    const step = steps[event.key];
    if (step !== undefined) moveTo(step);
    else if (event.key === "Enter" && row !== undefined) open(row);
    else if (event.key === " " && row !== undefined && bulk !== undefined) toggle(rowId(row));
    else if (event.key === "Escape" && selected.size > 0) clear();
    else return;
    event.preventDefault();
  };
  useSlashKey(filterInput);

  if (props.error && props.rows === undefined) {
    return <ErrorBox error={props.error} title={`The ${name} cannot be read`} onRetry={props.onRetry} />;
  }
  if (props.rows === undefined) return <Waiting />;
  if (rows.length === 0 && props.complete !== false && props.empty !== undefined) return <>{props.empty}</>;

  const { first, last } =
    arranged.length <= drawnWhole
      ? { first: 0, last: arranged.length }
      : windowOf(arranged.length, rowHeight, view.top, view.height);
  const allPicked = arranged.length > 0 && picked.length > 0 && arranged.every((row) => selected.has(rowId(row)));
  const width = shown.reduce((sum, column) => sum + (column.width ?? 130), bulk === undefined ? 0 : 36);

  return (
    <Stack gap="xs" miw={0}>
      <Group gap="xs">
        <TextInput
          ref={filterInput}
          className={classes.filter}
          size="xs"
          value={filter}
          onChange={(event) => setFilter(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Escape" && filter === "") event.currentTarget.blur();
            else if (event.key === "Escape") setFilter("");
            else if (event.key === "ArrowDown" || event.key === "Enter") {
              event.preventDefault();
              grid.current?.focus();
              moveTo(0);
            }
          }}
          leftSection={<IconSearch size={14} />}
          placeholder="Filter ( / )"
          aria-label={`Filter ${name}`}
          autoComplete="off"
          spellCheck={false}
        />
        {facets.map((facet) => (
          <FacetChoice
            key={facet.key}
            title={facet.title}
            options={facet.options ?? valuesOf(rows, columns, facet.key)}
            chosen={chosen[facet.key] ?? []}
            onChange={(values) => setSearch({ [prefix + facet.key]: values } as never)}
          />
        ))}
        {props.toolbar}
        <Group gap="xs" ml="auto" wrap="nowrap">
          {props.complete === false && <Loader size={14} role="status" aria-label="Loading further pages" />}
          <Text size="xs" c="dimmed" className="nowrap" aria-live="polite">
            {found.length === rows.length ? count(rows.length) : `${count(found.length)} of ${count(rows.length)}`}
            {props.complete === false ? " so far" : ""}
          </Text>
          <ColumnChoice choice={choice} columns={columns} />
        </Group>
      </Group>
      {bulk !== undefined && picked.length > 0 && (
        <BulkBar count={picked.length} onClear={clear}>
          {bulk(picked, clear)}
        </BulkBar>
      )}
      {props.error ? <ErrorBox error={props.error} title="What you see may be out of date" /> : null}
      <div ref={scroller} className={classes.scroll} onScroll={view.onScroll}>
        {/* The table is one stop of the tab key; arrows move in it. */}
        <table
          ref={grid}
          className={classes.table}
          style={{ minWidth: width }}
          tabIndex={0}
          // biome-ignore lint/a11y/noNoninteractiveElementToInteractiveRole: a grid is a table whose rows can be chosen
          role="grid"
          aria-label={name}
          aria-rowcount={arranged.length + 1}
          aria-multiselectable={bulk !== undefined}
          aria-activedescendant={active === undefined ? undefined : `${domId}-${active}`}
          onKeyDown={onKeyDown}
        >
          <colgroup>
            {bulk !== undefined && <col style={{ width: 36 }} />}
            {shown.map((column) => (
              <col key={column.key} style={column.width === undefined ? undefined : { width: column.width }} />
            ))}
          </colgroup>
          <thead>
            <tr aria-rowindex={1}>
              {bulk !== undefined && (
                <th className={classes.pick}>
                  <Checkbox
                    size="xs"
                    aria-label={`Choose all ${name}`}
                    checked={allPicked}
                    indeterminate={picked.length > 0 && !allPicked}
                    onChange={() => setSelected(allPicked ? new Set() : new Set(arranged.map(rowId)))}
                  />
                </th>
              )}
              {shown.map((column) => (
                <Header
                  key={column.key}
                  column={column}
                  sort={sort}
                  onSort={(key) => setSearch({ [`${prefix}sort`]: key } as never)}
                />
              ))}
            </tr>
          </thead>
          <tbody>
            {first > 0 && <tr aria-hidden style={{ height: first * rowHeight }} />}
            {arranged.slice(first, last).map((row, offset) => {
              const id = rowId(row);
              return (
                <TableRow
                  key={id}
                  row={row}
                  id={id}
                  domId={`${domId}-${id}`}
                  index={first + offset + 2}
                  columns={shown as readonly Column<object>[]}
                  selectable={bulk !== undefined}
                  selected={selected.has(id)}
                  active={active === id}
                  onToggle={toggle}
                  onOpen={link === undefined ? undefined : (open as (row: object) => void)}
                  onActive={setActive}
                />
              );
            })}
            {last < arranged.length && <tr aria-hidden style={{ height: (arranged.length - last) * rowHeight }} />}
          </tbody>
        </table>
        {arranged.length === 0 && (
          <EmptyState title={`No ${name} match`}>Change the filter, or clear it with Escape.</EmptyState>
        )}
      </div>
    </Stack>
  );
}

function Header<Row>({ column, sort, onSort }: { column: Column<Row>; sort: string; onSort: (key: string) => void }) {
  const down = sort === `-${column.key}`;
  const up = sort === column.key;
  return (
    <th aria-sort={up ? "ascending" : down ? "descending" : "none"} data-align={column.align}>
      <UnstyledButton className={classes.sort} onClick={() => onSort(up ? `-${column.key}` : column.key)}>
        <span className={classes.title}>{column.title}</span>
        {up && <IconArrowUp size={12} />}
        {down && <IconArrowDown size={12} />}
      </UnstyledButton>
    </th>
  );
}

interface RowProps {
  row: object;
  id: string;
  domId: string;
  index: number;
  columns: readonly Column<object>[];
  selectable: boolean;
  selected: boolean;
  active: boolean;
  onToggle: (id: string) => void;
  onOpen: ((row: object) => void) | undefined;
  onActive: (id: string) => void;
}

const TableRow = memo(
  function TableRow({
    row,
    id,
    domId,
    index,
    columns,
    selectable,
    selected,
    active,
    onToggle,
    onOpen,
    onActive,
  }: RowProps) {
    return (
      <tr
        id={domId}
        aria-rowindex={index}
        aria-selected={selectable ? selected : undefined}
        data-selected={selected || undefined}
        data-active={active || undefined}
        data-opens={onOpen !== undefined || undefined}
        onClick={(event) => {
          const target = event.target as HTMLElement;
          onActive(id);
          // Links and buttons in a cell do what they say; text that was marked is being copied.
          if (target.closest("a,button,input,label") || !event.currentTarget.contains(target)) return;
          if (getSelection()?.type === "Range") return;
          onOpen?.(row);
        }}
      >
        {selectable && (
          <td className={classes.pick}>
            <input
              type="checkbox"
              className={classes.check}
              tabIndex={-1}
              aria-label={`Choose ${id}`}
              checked={selected}
              onChange={() => onToggle(id)}
            />
          </td>
        )}
        {columns.map((column) => (
          <td key={column.key} data-align={column.align}>
            {column.cell === undefined ? (column.value(row) ?? "–") : column.cell(row)}
          </td>
        ))}
      </tr>
    );
  },
  // The functions are new at each draw and do the same.
  (a, b) =>
    a.row === b.row &&
    a.index === b.index &&
    a.columns === b.columns &&
    a.selectable === b.selectable &&
    a.selected === b.selected &&
    a.active === b.active,
);

function Waiting() {
  return (
    <Stack gap={6} aria-busy aria-label="Loading">
      {[0, 1, 2, 3, 4, 5].map((line) => (
        <Skeleton key={line} height={30} opacity={1 - line * 0.14} />
      ))}
    </Stack>
  );
}

function valuesOf<Row>(rows: readonly Row[], columns: readonly Column<Row>[], key: string): string[] {
  const column = columns.find((each) => each.key === key);
  if (column === undefined) return [];
  const values = new Set<string>();
  for (const row of rows) values.add(String(column.value(row) ?? ""));
  values.delete("");
  return [...values].sort();
}

/** Where a box is scrolled to. Draws again only when other rows come into sight. */
function useScrollWindow(box: React.RefObject<HTMLDivElement | null>, total: number) {
  const [view, setView] = useState({ top: 0, height: 800 });
  const measure = () => {
    const element = box.current;
    if (element === null) return;
    // A quarter of what is drawn beyond the edge may pass before the next draw.
    const step = rowHeight * 3;
    const top = Math.floor(element.scrollTop / step) * step;
    const height = element.clientHeight;
    setView((before) => (before.top === top && before.height === height ? before : { top, height }));
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: another number of rows can move the scroll position
  useLayoutEffect(measure, [total]);
  useEffect(() => {
    addEventListener("resize", measure);
    return () => removeEventListener("resize", measure);
  });
  return { ...view, onScroll: measure };
}

/** The key `/` goes to the filter, unless one types somewhere. */
function useSlashKey(input: React.RefObject<HTMLInputElement | null>) {
  useEffect(() => {
    const listen = (event: globalThis.KeyboardEvent) => {
      const target = event.target as HTMLElement | null;
      if (
        event.key !== "/" ||
        event.ctrlKey ||
        event.metaKey ||
        target?.closest("input,textarea,select,[contenteditable]")
      )
        return;
      event.preventDefault();
      input.current?.focus();
      input.current?.select();
    };
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, [input]);
}
