import { MantineProvider } from "@mantine/core";
import { render, screen } from "@testing-library/react";
import type { ComponentProps } from "react";
import { expect, test, vi } from "vitest";
import { ApiError } from "../../../api/client.ts";
import { DryRunPanel } from "./DryRunPanel.tsx";

const nothing = {
  sourced: true,
  blocked: false,
  answer: undefined,
  error: null,
  busy: false,
  old: false,
  least: undefined,
  onRetry: () => {},
};

function show(props: Partial<ComponentProps<typeof DryRunPanel>>) {
  render(
    <MantineProvider>
      <DryRunPanel {...nothing} {...props} />
    </MantineProvider>,
  );
  return document.body.textContent ?? "";
}

test("a tenant, who is told no nodes, still learns whether it fits and why not", () => {
  const answer = {
    nodes: [],
    placed: 0,
    unplaced: 5,
    reasons: [{ count: 5, reason: "memory", detail: "nodes have too little free memory: ask for less" }],
  };
  const text = show({ answer });
  expect(text).toContain("None fits.");
  expect(text).toContain("Nothing would start: all have to fit.");
  expect(text).toContain("Nodes have too little free memory: ask for less");
  expect(screen.queryByRole("list", { name: "Members by node" })).toBeNull();
});

test("errors that stand at their fields are not repeated, others are shown with a way to try again", () => {
  const atField = new ApiError(422, {
    code: "invalid",
    errors: [{ pointer: "/cpus", code: "out_of_range", detail: "x" }],
  });
  expect(show({ error: atField })).toContain("Some fields have to be mended first.");
  const onRetry = vi.fn();
  show({ error: ApiError.noAnswer(), onRetry });
  screen.getByRole("button", { name: "Try again" }).click();
  expect(onRetry).toHaveBeenCalledOnce();
});

test("nothing is claimed before anything is chosen", () => {
  expect(show({ sourced: false })).toContain("Choose what to start from.");
});
