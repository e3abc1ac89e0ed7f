import { MantineProvider } from "@mantine/core";
import { createMemoryHistory, createRootRoute, createRouter, RouterProvider } from "@tanstack/react-router";
import { render, screen, waitFor } from "@testing-library/react";
import { userEvent } from "@testing-library/user-event";
import { expect, test } from "vitest";
import { parseSearch, stringifySearch } from "../search-state.ts";
import { type Column, ThingsTable } from "./ThingsTable.tsx";

interface Row {
  id: string;
  name: string;
  state: string;
}
const rowsOf = (total: number): Row[] =>
  Array.from({ length: total }, (_, n) => ({ id: `id-${n}`, name: `web.${n}`, state: n % 2 ? "failed" : "running" }));
const columns: readonly Column<Row>[] = [
  { key: "name", title: "Name", value: (row) => row.name },
  { key: "state", title: "State", value: (row) => row.state },
];
const idOf = (row: Row) => row.id;

/** A page with only the table, at an address. */
async function shown(rows: Row[], address = "/") {
  const table = () => (
    <ThingsTable
      name="instances"
      rows={rows}
      rowId={idOf}
      columns={columns}
      facets={[{ key: "state", title: "State" }]}
      link={(row) => ({ to: `/${row.id}` }) as never}
      bulk={(chosen) => <span>chosen: {chosen.map(({ name }) => name).join(" ")}</span>}
    />
  );
  const router = createRouter({
    routeTree: createRootRoute({ component: table }),
    history: createMemoryHistory({ initialEntries: [address] }),
    parseSearch,
    stringifySearch,
  });
  render(
    <MantineProvider env="test">
      <RouterProvider router={router as never} />
    </MantineProvider>,
  );
  await screen.findByRole("grid");
  return { router, user: userEvent.setup() };
}

/** The first cells of the rows that are drawn. */
const names = () => screen.getAllByText(/^web\.\d+$/).map((cell) => cell.textContent);

test("filter, choice of values and sorting come from the address, so that a view can be shared", async () => {
  await shown(rowsOf(12), "/?q=web.1&state=failed&sort=-name");
  expect(names()).toEqual(["web.11", "web.1"]);
});

test("what is typed into the filter counts at once and is in the address when the typing pauses", async () => {
  const { router, user } = await shown(rowsOf(12));
  await user.keyboard("/");
  expect(document.activeElement).toBe(screen.getByLabelText("Filter instances"));
  await user.keyboard("web.11");
  expect(names()).toEqual(["web.11"]);
  await waitFor(() => expect(router.state.location.search).toEqual({ q: "web.11" }));
});

test("the keyboard alone moves, chooses and opens", async () => {
  const { router, user } = await shown(rowsOf(5));
  screen.getByRole("grid").focus();
  await user.keyboard("{ArrowDown}j k");
  expect(await screen.findByText("chosen: web.1")).toBeTruthy();
  await user.keyboard("{End} ");
  expect(await screen.findByText("chosen: web.1 web.4")).toBeTruthy();
  await user.keyboard("{Escape}{Home}{Enter}");
  expect(screen.queryByText(/^chosen/)).toBeNull();
  await waitFor(() => expect(router.state.location.pathname).toBe("/id-0"));
});

test("of ten thousand rows only those in sight are drawn, and screen readers know how many there are", async () => {
  await shown(rowsOf(10_000));
  expect(names().length).toBeLessThan(60);
  expect(screen.getByRole("grid").getAttribute("aria-rowcount")).toBe("10001");
});

test("texts of things are shown as texts", async () => {
  await shown([{ id: "x", name: "<img src=x onerror=alert(1)>", state: "running" }]);
  expect(screen.getByText("<img src=x onerror=alert(1)>")).toBeTruthy();
  expect(document.querySelector("img")).toBeNull();
});
